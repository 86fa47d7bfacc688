// The image as the model sees it, and where on it a sub-unit is active.

function grid(map) {
  const small = new OffscreenCanvas(map.columns, map.rows);
  const context = small.getContext("2d");
  const pixels = context.createImageData(map.columns, map.rows);
  map.values.flat().forEach((value, i) => {
    const part = value / 255;
    pixels.data.set([255, 70 + 150 * part * part, 20 + 40 * part * part, 215 * part ** 0.75], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return small;
}

/** The square of a map in which it is above half of its maximum, with a margin, as parts of its width and height. */
export function place(map) {
  const active = [];
  map.values.forEach((row, y) => row.forEach((value, x) => value > 127 && active.push([x, y])));
  if (!active.length) return { left: 0, top: 0, side: 1 };
  const range = (axis, cells) => [Math.min(...active.map((cell) => cell[axis])) / cells, (Math.max(...active.map((cell) => cell[axis])) + 1) / cells];
  const [[left, right], [top, bottom]] = [range(0, map.columns), range(1, map.rows)];
  const side = Math.min(1, Math.max(0.4, 1.3 * (right - left), 1.3 * (bottom - top)));
  const from = (low, high) => Math.min(Math.max((low + high - side) / 2, 0), 1 - side);
  return { left: from(left, right), top: from(top, bottom), side };
}

/** Draws an image cropped to where the map is active, and the map over it. */
export function crop(canvas, image, map) {
  const { left, top, side } = place(map);
  const context = canvas.getContext("2d");
  context.setTransform(1 / side, 0, 0, 1 / side, (-left * canvas.width) / side, (-top * canvas.height) / side);
  draw(canvas, image, map);
  context.resetTransform();
}

/** Draws an image, greyed and overlaid if there is a map; the image keeps its shape within the canvas. */
export function draw(canvas, image, map) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!image) return;
  const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  const box = [(canvas.width - width) / 2, (canvas.height - height) / 2, width, height];
  context.imageSmoothingEnabled = Math.max(image.width, image.height) >= 64;
  context.filter = map ? "grayscale(1) brightness(0.85)" : "none";
  context.drawImage(image, ...box);
  context.filter = "none";
  if (!map || map.maximum <= 0) return;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(grid(map), ...box);
}
