// A gallery of cards. `props.value`: {cards: [{images: [{source, alt, crisp, box}], title, lines, colour}], selected,
// empty}. Triggers 'pick' {row}.
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
    const images = make('span', 'images', button);
    for (const { source, alt, crisp, box } of card.images) {
      const holder = make('span', 'holder', images);
      const image = make('img', crisp ? 'crisp' : '', holder);
      image.src = source;
      image.alt = alt;
      if (box) position(make('span', 'mark', holder), box);
    }
    if (card.title) make('span', 'title', button, card.title);
    for (const line of card.lines || []) make('span', 'line', button, line);
    button.addEventListener('click', () => { hadFocus = true; trigger('pick', { row }); });
    if (row === value.selected && hadFocus) { button.focus({ preventScroll: true }); hadFocus = false; }
  });
}

watch('value', render);
render();
