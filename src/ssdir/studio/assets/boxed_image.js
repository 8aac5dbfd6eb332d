// An image with boxes. `props.value`: {title, image, alt, width, height, crisp, boxes: [{z_where, title, colour}],
// selected, moved_at, note}; boxes can be moved unless `moved_at` is null. Triggers 'pick' {row}, 'move' {row, z_where,
// sent, last, gesture} and 'command' {name, row}.
const STEP = 1 / 128, LEAST_SIDE = 0.02, HANDLE = 'handle';
let drag = null, keepFocus = false, sentMove = null, gesture = 0;

// Limits a side from below; one that was shorter than LEAST_SIDE already is not reduced.
function reduced(side, before) {
  return Math.max(side, Math.min(LEAST_SIDE, before));
}

// Returns the nearest box in the image.
function inside([cx, cy, w, h], [, , widthBefore, heightBefore]) {
  w = Math.min(reduced(w, widthBefore), 1);
  h = Math.min(reduced(h, heightBefore), 1);
  return [Math.min(Math.max(cx, w / 2), 1 - w / 2), Math.min(Math.max(cy, h / 2), 1 - h / 2), w, h];
}

// Until a value answers the last move, the box stays where the user has moved it.
function isPending() {
  return sentMove !== null && props.value.moved_at < sentMove.sent;
}

function render() {
  const root = element.querySelector('.boxed-image'), value = props.value;
  if (!root || !value) return;
  if (isPending() && sentMove.row in value.boxes) value.boxes[sentMove.row].z_where = sentMove.z_where;
  if (drag && root.contains(drag.node)) {
    root.querySelector('img').src = value.image;
    return;
  }
  const scrolled = root.querySelector('.scroller')?.scrollLeft ?? 0;
  root.replaceChildren();
  if (value.title) make('div', 'boxed-image-title', root, value.title);
  if (!value.image) { make('p', 'empty', root, value.note); return; }
  const scroller = make('div', 'scroller', root), frame = make('div', 'frame', scroller), ratio = value.width / value.height;
  frame.style.aspectRatio = ratio;
  frame.style.maxWidth = `${640 * ratio}px`;
  // A panorama gets a row of its own, and scrolls rather than becoming a stripe.
  frame.style.minWidth = ratio > 2 ? `${150 * ratio}px` : '';
  element.closest('.pair')?.classList.toggle('stacked', ratio > 2);
  const image = make('img', value.crisp ? 'crisp' : '', frame);
  image.src = value.image;
  image.alt = value.alt;
  image.draggable = false;
  const editable = value.moved_at !== null;
  // Large boxes first, so that small ones inside them can be clicked.
  const order = value.boxes.map((_, row) => row)
    .sort((a, b) => value.boxes[b].z_where[2] * value.boxes[b].z_where[3] - value.boxes[a].z_where[2] * value.boxes[a].z_where[3]);
  for (const row of order) {
    const { z_where, title, colour } = value.boxes[row], chosen = row === value.selected;
    const box = make('button', `box${chosen ? ' chosen' : ''}${editable ? ' editable' : ''}`, frame);
    box.type = 'button';
    box.style.setProperty('--box', colour);
    box.setAttribute('aria-label', title);
    box.setAttribute('aria-pressed', chosen);
    box.dataset.row = row;
    box.title = title;
    position(box, z_where);
    make('span', 'tag', box, String(row + 1));
    if (editable && chosen) make('span', HANDLE, box);
    box.addEventListener('click', () => { if (!editable) choose(row); });
    if (editable) {
      box.addEventListener('pointerdown', (event) => start(event, box, row));
      box.addEventListener('keydown', (event) => key(event, row));
      box.addEventListener('click', (event) => { if (event.detail === 0) choose(row); });
    }
    if (chosen && keepFocus) box.focus({ preventScroll: true });
  }
  if (value.note) make('p', 'note', root, value.note);
  scroller.scrollLeft = scrolled;
}

function choose(row) {
  keepFocus = true;
  trigger('pick', { row });
}

function start(event, node, row) {
  if (event.button !== 0) return;
  event.preventDefault();
  node.focus({ preventScroll: true });
  const frame = node.parentElement.getBoundingClientRect();
  drag = {
    node, row, frame, moved: false, x: event.clientX, y: event.clientY,
    resizing: event.target.classList.contains(HANDLE), from: [...props.value.boxes[row].z_where],
  };
  drag.now = drag.from;
  gesture = performance.now();
  node.setPointerCapture(event.pointerId);
  node.onpointermove = move;
  node.onpointerup = node.onpointercancel = stop;
}

function move(event) {
  const right = (event.clientX - drag.x) / drag.frame.width, down = (event.clientY - drag.y) / drag.frame.height;
  if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 3) return;
  drag.moved = true;
  const [cx, cy, w, h] = drag.from;
  const wide = reduced(w + right, w), high = reduced(h + down, h);
  drag.now = drag.resizing
    ? inside([cx - w / 2 + wide / 2, cy - h / 2 + high / 2, wide, high], drag.from)
    : inside([cx + right, cy + down, w, h], drag.from);
  position(drag.node, drag.now);
  // During a drag, the next move waits for the answer to the last one; the final move is always sent.
  if (!isPending() && performance.now() - (sentMove?.sent ?? 0) > 100) sendMove(drag.row, drag.now, false);
}

function stop() {
  const { row, moved, now } = drag;
  drag.node.onpointermove = drag.node.onpointerup = drag.node.onpointercancel = null;
  drag = null;
  keepFocus = true;
  if (moved) sendMove(row, now, true);
  else trigger('pick', { row });
}

function key(event, row) {
  const step = STEP * (event.shiftKey ? 8 : 1), from = props.value.boxes[row].z_where, [cx, cy, w, h] = from;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const factors = { '+': 1.1, '=': 1.1, '-': 1 / 1.1 };
  const commands = { Delete: 'remove', Backspace: 'remove', d: 'duplicate', f: 'front', b: 'back' };
  if (!event.repeat) gesture = performance.now();
  const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z';
  if (undo) trigger('command', { name: event.shiftKey ? 'redo' : 'undo', row });
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key in moves) {
    const [right, down] = moves[event.key];
    sendMove(row, inside([cx + right, cy + down, w, h], from), true);
  } else if (event.key in factors) {
    const factor = factors[event.key];
    sendMove(row, inside([cx, cy, w * factor, h * factor], from), true);
  } else if (event.key in commands) trigger('command', { name: commands[event.key], row });
  else return;
  keepFocus = true;
  event.preventDefault();
}

function sendMove(row, z_where, last) {
  sentMove = { row, z_where, sent: performance.now(), last, gesture };
  props.value.boxes[row].z_where = z_where;
  trigger('move', sentMove);
}

element.addEventListener('focusout', (event) => {
  if (event.relatedTarget && !element.contains(event.relatedTarget)) keepFocus = false;
});
watch('value', render);
render();
