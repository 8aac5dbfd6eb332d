// A zoomable map. `props.value`: {points: [[x, y]], titles, atlas, tile, columns, colourings: {name: {values, names}
// or {values, low, high}}}; `props.marks`: the points that get a ring; `props.path`: those that a line joins, in its
// order. Triggers 'pick' {row}.
const PALETTE = ['#e69f00', '#56b4e9', '#009e73', '#d9c600', '#cc79a7', '#d55e00', '#0072b2', '#2f9e44', '#7a4fd0', '#b5651d', '#3fbfbf', '#e05a8a'];
const root = element.querySelector('.map'), PATH = '#be123c';
let view = { x: 0.5, y: 0.5, zoom: 1 }, hover = -1, chosen = -1, colouring = null, drag = null;
const atlas = new Image();

const bar = make('div', 'map-bar', root);
const label = make('label', '', bar, 'Colour by ');
const select = make('select', '', label);
const legend = make('div', 'legend', bar);
const reset = make('button', 'reset', bar, 'Show all');
reset.type = 'button';
const box = make('div', 'map-box', root);
const canvas = make('canvas', '', box);
canvas.tabIndex = 0;
canvas.setAttribute('role', 'application');
canvas.setAttribute('aria-label', 'Map of objects: arrow keys go from object to object, Enter opens, plus and minus zoom');
const tip = make('div', 'tip', box);
const tipImage = make('canvas', 'crisp', tip);
const tipText = make('span', '', tip);
tip.hidden = true;

function heat(share) {
  // Dark blue to yellow, lightness rising all the way (after matplotlib's viridis).
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return `rgb(${stops[i].map((low, c) => Math.round(low + (stops[i + 1][c] - low) * (at - i))).join(',')})`;
}

function colour(row) {
  const scale = props.value.colourings[colouring], value = scale.values[row];
  if (value === null) return '#cccccc';
  return scale.names ? PALETTE[value % PALETTE.length] : heat((value - scale.low) / (scale.high - scale.low || 1));
}

function side() { return Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94; }
function screen(row) {
  const [x, y] = props.value.points[row];
  return [
    canvas.clientWidth / 2 + (x - view.x) * side() * view.zoom,
    canvas.clientHeight / 2 + (y - view.y) * side() * view.zoom,
  ];
}

function draw() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !props.value.points.length) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  pen.imageSmoothingEnabled = false;
  const { points, tile, columns } = props.value, marks = new Set(props.marks || []);
  // Crops replace the points as soon as the zoom leaves enough space between them.
  const spacing = side() * view.zoom / Math.sqrt(points.length), crops = spacing > 46 && atlas.complete;
  const size = Math.min(spacing * 0.7, 56), radius = Math.min(Math.max(spacing / 5, 2.5), 6);
  points.forEach((_, row) => {
    const [x, y] = screen(row);
    if (x < -60 || y < -60 || x > width + 60 || y > height + 60) return;
    const edge = row === chosen ? 4 : row === hover || marks.has(row) ? 3 : 0;
    if (crops) {
      pen.fillStyle = edge ? ring(row) : colour(row);
      const frame = edge || 2;
      pen.fillRect(x - size / 2 - frame, y - size / 2 - frame, size + 2 * frame, size + 2 * frame);
      pen.drawImage(atlas, (row % columns) * tile, Math.floor(row / columns) * tile, tile, tile, x - size / 2, y - size / 2, size, size);
    } else {
      pen.beginPath();
      pen.arc(x, y, radius + edge / 2, 0, 2 * Math.PI);
      pen.fillStyle = colour(row);
      pen.fill();
      if (edge) { pen.lineWidth = edge - 1; pen.strokeStyle = ring(row); pen.stroke(); }
    }
  });
  drawPath(pen);
}
// Its first point is a square, its last one a ring; drawn over the crops, which would hide it.
function drawPath(pen) {
  const path = (props.path || []).map(screen);
  if (!path.length) return;
  pen.lineWidth = 2;
  pen.strokeStyle = pen.fillStyle = PATH;
  pen.beginPath();
  path.forEach(([x, y]) => pen.lineTo(x, y));
  pen.stroke();
  path.forEach(([x, y]) => pen.fillRect(x - 2, y - 2, 4, 4));
  pen.fillRect(path[0][0] - 6, path[0][1] - 6, 12, 12);
  pen.beginPath();
  pen.arc(...path.at(-1), 7, 0, 2 * Math.PI);
  pen.stroke();
}
function ring(row) { return row === chosen ? '#111827' : row === hover ? '#4338ca' : '#6366f1'; }

function nearestTo(x, y, reach) {
  let best = -1, least = reach;
  props.value.points.forEach((_, row) => {
    const [px, py] = screen(row), distance = Math.hypot(px - x, py - y);
    if (distance < least) { least = distance; best = row; }
  });
  return best;
}

function show(row) {
  hover = row;
  tip.hidden = row < 0;
  if (row >= 0) {
    const { tile, columns, titles } = props.value, [x, y] = screen(row);
    tipImage.width = tipImage.height = tile;
    tipImage.getContext('2d').drawImage(atlas, (row % columns) * tile, Math.floor(row / columns) * tile, tile, tile, 0, 0, tile, tile);
    tipText.textContent = titles[row];
    tip.style.left = `${Math.min(Math.max(x + 12, 0), box.clientWidth - 150)}px`;
    tip.style.top = `${Math.min(Math.max(y + 12, 0), box.clientHeight - 150)}px`;
  }
  draw();
}

function open(row) {
  if (row < 0) return;
  chosen = row;
  draw();
  trigger('pick', { row });
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = view.zoom, scale = side();
  view.zoom = Math.min(Math.max(before * factor, 1), 60);
  const right = (x - canvas.clientWidth / 2) / scale, down = (y - canvas.clientHeight / 2) / scale;
  view.x += right / before - right / view.zoom;
  view.y += down / before - down / view.zoom;
  draw();
}

function step(right, down) {
  const from = hover >= 0 ? hover : chosen >= 0 ? chosen : nearestTo(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);
  const [x, y] = screen(from);
  let best = from, least = Infinity;
  props.value.points.forEach((_, row) => {
    const [px, py] = screen(row), along = (px - x) * right + (py - y) * down;
    const off = Math.abs((px - x) * down) + Math.abs((py - y) * right);
    if (row !== from && along > 0 && along + 2 * off < least) { least = along + 2 * off; best = row; }
  });
  show(best);
}

canvas.addEventListener('wheel', (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener('pointerdown', (event) => {
  drag = { x: event.clientX, y: event.clientY, from: { ...view }, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener('pointermove', (event) => {
  if (!drag) { show(nearestTo(event.offsetX, event.offsetY, 24)); return; }
  const right = event.clientX - drag.x, down = event.clientY - drag.y;
  if (!drag.moved && Math.hypot(right, down) < 4) return;
  drag.moved = true;
  view.x = drag.from.x - right / side() / view.zoom;
  view.y = drag.from.y - down / side() / view.zoom;
  draw();
});
canvas.addEventListener('pointerup', (event) => {
  const moved = drag && drag.moved;
  drag = null;
  if (!moved) open(nearestTo(event.offsetX, event.offsetY, 24));
});
canvas.addEventListener('pointerleave', () => { if (!drag) show(-1); });
canvas.addEventListener('keydown', (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key in steps) step(...steps[event.key]);
  else if (event.key === 'Enter') open(hover);
  else if (event.key === '+' || event.key === '=') zoom(1.5);
  else if (event.key === '-') zoom(1 / 1.5);
  else return;
  event.preventDefault();
});
reset.addEventListener('click', () => { view = { x: 0.5, y: 0.5, zoom: 1 }; draw(); });
select.addEventListener('change', () => { colouring = select.value; showLegend(); draw(); });

function showLegend() {
  const scale = props.value.colourings[colouring];
  legend.replaceChildren();
  if (!scale.names) {
    make('span', '', legend, scale.low.toPrecision(2));
    const ramp = make('span', 'ramp', legend);
    ramp.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(heat).join(',')})`;
    make('span', '', legend, scale.high.toPrecision(2));
    return;
  }
  scale.names.slice(0, PALETTE.length).forEach((name, index) => {
    const entry = make('span', 'entry', legend);
    make('i', '', entry).style.background = PALETTE[index % PALETTE.length];
    entry.append(name);
  });
}

function load() {
  select.replaceChildren();
  bar.hidden = !props.value.points.length;
  if (bar.hidden) return;
  for (const name of Object.keys(props.value.colourings)) make('option', '', select, name).value = name;
  colouring = select.value;
  atlas.onload = draw;
  atlas.src = props.value.atlas;
  showLegend();
  draw();
}

new ResizeObserver(draw).observe(canvas);
watch('marks', draw);
watch('path', draw);
watch('value', load);
load();
