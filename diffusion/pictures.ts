/** A user's pictures in, pictures and labelled grids of them out (Node). */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import sharp, { type Metadata } from 'sharp';
import { reason } from '../nn/files.ts';
import { renderSvg } from '../nn/svg.ts';

/** A picture as models see it: `data` is (3, height, width), red, green, blue, in [−1, 1]. */
export interface Picture {
  readonly data: Float32Array;
  readonly width: number;
  readonly height: number;
}

const FORMATS = ['jpeg', 'png', 'webp'];
const EXTENSIONS = ['.jpg', '.jpeg', '.png', '.webp'];
/** Below this a picture says too little to learn from, and is more likely a tracking pixel or an icon that strayed in. */
const MIN_SIDE = 16;
/** Above this, decoding one picture may take gigabytes. */
const MAX_PIXELS = 100_000_000;

/**
 * The picture files of a folder, full paths in order of name. Other files are left out with a warning, hidden ones silently.
 * An error where the folder is missing or has no picture.
 */
export async function listPictures(
  folder: string,
  warn: (message: string) => void = (message) => console.warn(message),
): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const what = error.code === 'ENOTDIR' ? 'it is a file: name the folder with the pictures' : reason(error);
    throw new Error(`[pictures] cannot read the folder ${folder}: ${what}`, { cause: error });
  });
  const files: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) warn(`[pictures] ${file} is skipped: it is a folder`);
    else if (EXTENSIONS.includes(path.extname(entry.name).toLowerCase())) files.push(file);
    else warn(`[pictures] ${file} is skipped: only ${EXTENSIONS.join(', ')} are read`);
  }
  if (files.length === 0) {
    throw new Error(`[pictures] the folder ${folder} has no pictures: put JPEG, PNG or WebP files into it`);
  }
  return files.sort();
}

/**
 * Loads a picture as a square of `size` pixels, never squashed: the largest square is cut out, at `position` along the longer
 * side (0 the left or top end, ½ the centre, 1 the other end; random for a random crop), and resized with Lanczos' kernel.
 * EXIF orientation is respected, transparency becomes white. A file that is no picture, damaged, too small or too large is an
 * error; the size is known from its header, before anything is decoded.
 */
export async function loadPicture(file: string, size: number, position = 0.5): Promise<Picture> {
  const fail = (what: string, cause?: unknown): never => {
    throw new Error(`[pictures] ${file}: ${what}`, { cause });
  };
  // Read here: libvips would keep what it knows of a path although the file changes.
  const bytes = await readFile(file).catch((error: Error) => fail(`it cannot be read: ${reason(error)}`, error));
  if (bytes.length === 0) fail('it is empty');
  const input = sharp(bytes, { failOn: 'warning', limitInputPixels: false }); // the limit below, in words of our own
  const header: Metadata = await input
    .metadata()
    .catch((error: Error) => fail(`it is no picture that can be read, or a damaged one: ${error.message}`, error));
  const { width, height } = header.autoOrient;
  if (!FORMATS.includes(header.format)) fail(`it is ${header.format}, only JPEG, PNG and WebP are read`);
  if (width * height > MAX_PIXELS) {
    fail(`it has ${width}×${height} pixels, at most ${MAX_PIXELS / 1e6} million are read: make it smaller`);
  }
  const side = Math.min(width, height);
  if (side < MIN_SIDE) fail(`it has ${width}×${height} pixels, each side must have at least ${MIN_SIDE}`);
  const pixels = await input
    .autoOrient()
    .extract({
      left: Math.round((width - side) * position),
      top: Math.round((height - side) * position),
      width: side,
      height: side,
    })
    .flatten({ background: 'white' })
    .resize(size, size, { kernel: 'lanczos3' })
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer()
    .catch((error: Error) => fail(`it is truncated or damaged: ${error.message}`, error));
  return fromBytes(pixels, size, size);
}

/** (height, width, 3) bytes → (3, height, width) in [−1, 1]. */
export function fromBytes(bytes: Uint8Array, width: number, height: number): Picture {
  const area = width * height;
  const data = new Float32Array(3 * area);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < area; i++) data[c * area + i] = bytes[3 * i + c] / 127.5 - 1;
  }
  return { data, width, height };
}

/** (3, height, width) in [−1, 1], clamped → (height, width, 3) bytes. */
export function toBytes({ data, width, height }: Picture): Uint8Array {
  const area = width * height;
  const bytes = new Uint8ClampedArray(3 * area); // rounds and clamps
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < area; i++) bytes[3 * i + c] = (data[c * area + i] + 1) * 127.5;
  }
  return new Uint8Array(bytes.buffer);
}

/** The pictures of a batch, data (n, 3, height, width). */
export function splitPictures(data: Float32Array, [n, , height, width]: readonly number[]): Picture[] {
  const size = 3 * height * width;
  return Array.from({ length: n }, (_, i) => ({ data: data.subarray(i * size, (i + 1) * size), width, height }));
}

/** A picture as a PNG file's bytes. */
export function encodePng(picture: Picture): Promise<Uint8Array> {
  const { width, height } = picture;
  return sharp(toBytes(picture), { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

export interface GridOptions {
  readonly columns: number;
  readonly title?: string;
  readonly columnLabels?: readonly string[];
  readonly rowLabels?: readonly string[];
  /** One under each picture. */
  readonly captions?: readonly string[];
  /** Edge of a cell in pixels; pictures are scaled to it. */
  readonly cell?: number;
}

const FONT_SIZE = 12;
const LINE = 15;
const GAP = 6;
const LABEL_WIDTH = 150;

/** Pictures row by row in a grid with labels, as a PNG file's bytes. `null` leaves a cell empty. */
export async function grid(pictures: readonly (Picture | null)[], options: GridOptions): Promise<Uint8Array> {
  const { columns, title, columnLabels = [], rowLabels = [], captions = [], cell = 128 } = options;
  const rows = Math.ceil(pictures.length / columns);
  const headers = columnLabels.map((label) => wrap(label, cell));
  const headerLines = Math.max(0, ...headers.map((lines) => lines.length));
  const below = captions.map((caption) => wrap(caption, cell));
  const rowHeight = cell + GAP + Math.max(0, ...below.map((lines) => lines.length)) * LINE;
  const left = GAP + (rowLabels.length > 0 ? LABEL_WIDTH + GAP : 0);
  const titleHeight = title === undefined ? 0 : 2 * LINE;
  const top = GAP + titleHeight + (headerLines > 0 ? headerLines * LINE + GAP : 0);
  const width = left + columns * (cell + GAP);
  const height = top + rows * rowHeight;

  const parts: string[] = [];
  if (title !== undefined) parts.push(text([title], GAP, GAP + LINE, 'start', 'font-size="15"'));
  headers.forEach((lines, i) => {
    // Labels of one line stand on the pictures, whatever the others need.
    const y = top - GAP - (lines.length - 1) * LINE - 3;
    parts.push(text(lines, left + i * (cell + GAP) + cell / 2, y, 'middle'));
  });
  rowLabels.forEach((label, i) => {
    const lines = wrap(label, LABEL_WIDTH);
    const middle = top + i * rowHeight + cell / 2;
    parts.push(text(lines, left - GAP, middle - ((lines.length - 1) * LINE) / 2 + FONT_SIZE / 3, 'end'));
  });
  for (const [i, picture] of pictures.entries()) {
    if (!picture) continue;
    const x = left + (i % columns) * (cell + GAP);
    const y = top + Math.floor(i / columns) * rowHeight;
    if (below[i]) parts.push(text(below[i], x + cell / 2, y + cell + LINE - 2, 'middle'));
    const png = Buffer.from(await encodePng(picture)).toString('base64');
    parts.push(`<image x="${x}" y="${y}" width="${cell}" height="${cell}" href="data:image/png;base64,${png}"/>`);
  }
  return renderSvg(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-size="${FONT_SIZE}">
    <rect width="100%" height="100%" fill="#e8e8e8"/>${parts.join('')}</svg>`,
  );
}

/** Breaks a label at spaces into lines of about `width` pixels; a letter has about 0.6 of the font's size. */
function wrap(label: string, width: number): string[] {
  const most = Math.max(1, Math.floor(width / (0.6 * FONT_SIZE)));
  const lines = [''];
  for (const word of label.split(' ')) {
    const line = lines[lines.length - 1];
    if (line === '') lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= most) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function text(lines: readonly string[], x: number, y: number, anchor: string, attributes = ''): string {
  const escape = (line: string) => line.replace(/\p{Cc}/gu, ' ').replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`);
  const spans = lines.map((line, i) => `<tspan x="${x}" y="${y + i * LINE}">${escape(line)}</tspan>`);
  return `<text text-anchor="${anchor}" fill="#222" ${attributes}>${spans.join('')}</text>`;
}
