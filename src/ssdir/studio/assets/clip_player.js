// Plays a clip beside what is decoded of it. `props.value`: {frames: [{image, reconstruction, title, boxes:
// [{z_where, track, title, colour}]}], width, height, rate}; `props.followed`: a track, or 0 for none; `props.seek`:
// {frame, time}, the frame to show. Triggers 'pick' {track}.
const root = element.querySelector('.clip-player');
let at = 0, timer = null, views = [];

function render() {
  stop();
  root.replaceChildren();
  views = [];
  const { frames, width, height } = props.value;
  if (!frames || !frames.length) { make('p', 'empty', root, 'Loading the clip …'); return; }
  const ratio = width / height, pair = make('div', 'pictures', root);
  for (const [kind, title] of [['image', 'Clip'], ['reconstruction', 'Decoded objects']]) {
    const column = make('div', 'boxed-image', pair);
    make('div', 'boxed-image-title', column, title);
    const frame = make('div', 'frame', column);
    frame.style.aspectRatio = ratio;
    column.style.maxWidth = `${480 * ratio}px`;
    column.style.flexBasis = `${160 * ratio}px`;  // side by side on a phone too, unless the pictures are wide
    const image = make('img', Math.max(width, height) <= 256 || kind === 'reconstruction' ? 'crisp' : '', frame);
    image.draggable = false;
    views.push({ kind, title, frame, image, boxes: new Map() });
  }
  const bar = make('div', 'player-bar', root);
  const play = make('button', 'play', bar, 'Play');
  play.type = 'button';
  play.addEventListener('click', () => (timer ? stop() : start()));
  const slider = make('input', '', bar);
  slider.type = 'range';
  slider.min = 0;
  slider.max = frames.length - 1;
  slider.setAttribute('aria-label', 'Frame');
  slider.addEventListener('input', () => { stop(); show(Number(slider.value)); });
  make('p', 'note', root).setAttribute('aria-live', 'off');
  show(Math.min(at, frames.length - 1));
}

function start() {
  const { frames, rate } = props.value;
  if (at === frames.length - 1) show(0);
  timer = setInterval(() => (at + 1 < frames.length ? show(at + 1) : stop()), 1000 / rate);
  root.querySelector('.play').textContent = 'Pause';
}

function stop() {
  clearInterval(timer);
  timer = null;
  const play = root.querySelector('.play');
  if (play) play.textContent = 'Play';
}

function show(number) {
  at = number;
  const { frames } = props.value, frame = frames[at], total = frames.length;
  for (const view of views) {
    view.frame.classList.toggle('missing', !frame[view.kind]);
    if (frame[view.kind]) view.image.src = frame[view.kind];
    view.image.alt = `${view.title}, ${frame.title}`;
    place(view, frame.boxes);
  }
  root.querySelector('input').value = at;
  root.querySelector('input').setAttribute('aria-valuetext', frame.title);
  const missing = frame.image ? '' : ', which can\'t be read';
  root.querySelector('.note').textContent = `${frame.title} (${at + 1} of ${total})${missing}`;
}

// A track keeps its button from frame to frame, so that the keyboard's focus stays on it.
function place(view, boxes) {
  const seen = new Set(boxes.map(({ track }) => track));
  for (const [track, node] of view.boxes) if (!seen.has(track)) { node.remove(); view.boxes.delete(track); }
  for (const { z_where, track, title, colour } of boxes) {
    let node = view.boxes.get(track);
    if (!node) {
      node = make('button', 'box', view.frame);
      node.type = 'button';
      node.dataset.track = track;
      node.style.setProperty('--box', colour);
      node.addEventListener('click', () => trigger('pick', { track }));
      make('span', 'tag', node, String(track));
      view.boxes.set(track, node);
    }
    node.title = title;
    node.setAttribute('aria-label', title);
    position(node, z_where);
    // Small boxes on top, so that they can be clicked.
    node.style.zIndex = Math.round(100 * (1 - Math.sqrt(z_where[2] * z_where[3])));
    mark(node, track);
  }
}

function mark(node, track) {
  const { followed } = props;
  node.classList.toggle('chosen', track === followed);
  node.classList.toggle('other', followed > 0 && track !== followed);
  node.setAttribute('aria-pressed', track === followed);
}

watch('value', render);
watch('followed', () => views.forEach(({ boxes }) => boxes.forEach(mark)));
watch('seek', () => { if (props.seek && views.length) { stop(); show(props.seek.frame); } });
render();
