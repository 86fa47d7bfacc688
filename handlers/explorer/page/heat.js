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
