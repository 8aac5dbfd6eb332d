// Shared by all components: text only ever becomes text nodes, because names of files and classes are not markup.
function make(tag, className, parent, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

// Positions an element on its box, cxcywh relative to the parent.
function position(node, [cx, cy, w, h]) {
  node.style.left = `${(cx - w / 2) * 100}%`;
  node.style.top = `${(cy - h / 2) * 100}%`;
  node.style.width = `${w * 100}%`;
  node.style.height = `${h * 100}%`;
}
