// Decoding of ThumbHash (https://evanw.github.io/thumbhash): a header with the means and scales of the channels, then
// four bits for each low frequency of a cosine transform. The encoder is imaging/measuring/thumbhash.py.

const LONGEST = 32; // pixels of the blurred picture's longer side

/** The picture in a hash as {width, height, data}: RGBA, ready for ImageData. */
export function decode(hash) {
  const head = hash[0] | (hash[1] << 8) | (hash[2] << 16);
  const tail = hash[3] | (hash[4] << 8);
  const hasAlpha = head >> 23 === 1;
  const landscape = tail >> 15 === 1;
  const most = hasAlpha ? 5 : 7;
  const columns = landscape ? most : tail & 7;
  const rows = landscape ? tail & 7 : most;

  let nibble = (hasAlpha ? 6 : 5) * 2;
  const frequencies = (across, down, scale) => {
    const values = [];
    for (let y = 0; y < down; y++) {
      for (let x = y ? 0 : 1; x * down < across * (down - y); x++, nibble++) {
        const four = (hash[nibble >> 1] >> (nibble & 1 ? 4 : 0)) & 15;
        values.push({ x, y, value: (four / 7.5 - 1) * scale });
      }
    }
    return values;
  };
  // Colour is stored a little paler than it is: the format's 1.25 makes up for the coarse steps.
  const light = frequencies(Math.max(3, columns), Math.max(3, rows), ((head >> 18) & 31) / 31);
  const yellow = frequencies(3, 3, (((tail >> 3) & 63) / 63) * 1.25);
  const pink = frequencies(3, 3, (((tail >> 9) & 63) / 63) * 1.25);
  const opacity = hasAlpha ? frequencies(5, 5, (hash[5] >> 4) / 15) : [];

  const ratio = columns / rows;
  const width = Math.round(ratio > 1 ? LONGEST : LONGEST * ratio) || 1;
  const height = Math.round(ratio > 1 ? LONGEST / ratio : LONGEST) || 1;
  const cosines = (length) =>
    Array.from({ length }, (_, at) => Array.from({ length: 8 }, (_, f) => Math.cos((Math.PI / length) * (at + 0.5) * f)));
  const across = cosines(width);
  const down = cosines(height);
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const sum = (mean, parts) => parts.reduce((v, p) => v + 2 * p.value * across[x][p.x] * down[y][p.y], mean);
      const l = sum((head & 63) / 63, light);
      const p = sum(((head >> 6) & 63) / 31.5 - 1, yellow);
      const q = sum(((head >> 12) & 63) / 31.5 - 1, pink);
      const blue = l - (2 / 3) * p;
      const red = (3 * l - blue + q) / 2;
      data[at] = 255 * red;
      data[at + 1] = 255 * (red - q);
      data[at + 2] = 255 * blue;
      data[at + 3] = hasAlpha ? 255 * sum((hash[5] & 15) / 15, opacity) : 255;
    }
  }
  return { width, height, data };
}

/** Paint a base64 hash into a canvas; false when it is no hash. */
export function paint(canvas, base64) {
  let picture;
  try {
    picture = decode(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)));
  } catch {
    return false;
  }
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(new ImageData(picture.data, picture.width, picture.height), 0, 0);
  return true;
}
