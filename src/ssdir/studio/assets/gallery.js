// Cards with pictures. `props.value`: {cards: [{pictures: [{source, alt, crisp}], title, lines, colour}], selected,
// empty}. Triggers 'pick' {row}.
function make(tag, className, parent, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

let hadFocus = false;

function render() {
  const root = element.querySelector('.gallery'), value = props.value;
  if (!root || !value) return;
  root.replaceChildren();
  if (!value.cards.length) { make('p', 'empty', root, value.empty || ''); return; }
  value.cards.forEach((card, row) => {
    const button = make('button', `card${row === value.selected ? ' chosen' : ''}`, root);
    button.type = 'button';
    button.setAttribute('aria-pressed', row === value.selected);
    if (card.colour) button.style.setProperty('--box', card.colour);
    const pictures = make('span', 'pictures', button);
    for (const { source, alt, crisp, box } of card.pictures) {
      const holder = make('span', 'holder', pictures);
      const picture = make('img', crisp ? 'crisp' : '', holder);
      picture.src = source;
      picture.alt = alt;
      if (box) {
        const [cx, cy, w, h] = box, mark = make('span', 'mark', holder);
        mark.style.left = `${(cx - w / 2) * 100}%`;
        mark.style.top = `${(cy - h / 2) * 100}%`;
        mark.style.width = `${w * 100}%`;
        mark.style.height = `${h * 100}%`;
      }
    }
    if (card.title) make('span', 'title', button, card.title);
    for (const line of card.lines || []) make('span', 'line', button, line);
    button.addEventListener('click', () => { hadFocus = true; trigger('pick', { row }); });
    if (row === value.selected && hadFocus) { button.focus({ preventScroll: true }); hadFocus = false; }
  });
}

watch('value', render);
render();
