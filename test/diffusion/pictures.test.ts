import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import sharp, { type Sharp } from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  encodePng,
  fromBytes,
  grid,
  listPictures,
  loadPicture,
  splitPictures,
  toBytes,
} from '../../diffusion/pictures.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'pictures-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A raw RGB picture from a function of x and y. */
function draw(width: number, height: number, pixel: (x: number, y: number) => number[]): Sharp {
  const bytes = Buffer.from(
    Array.from({ length: width * height }, (_, i) => pixel(i % width, Math.floor(i / width))).flat(),
  );
  return sharp(bytes, { raw: { width, height, channels: (bytes.length / width / height) as 3 | 4 } });
}
async function save(name: string, bytes: Uint8Array | Promise<Uint8Array>): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, await bytes);
  return file;
}
const QUADRANTS: Record<string, number[]> = { TL: [255, 0, 0], TR: [0, 255, 0], BL: [0, 0, 255], BR: [255, 255, 0] };
const quadrants = (size: number) =>
  draw(size, size, (x, y) => QUADRANTS[(y < size / 2 ? 'T' : 'B') + (x < size / 2 ? 'L' : 'R')]);
const pixelsOf = async (file: string, size: number, position?: number) => {
  const picture = await loadPicture(file, size, position);
  expect([picture.width, picture.height, picture.data.length]).toEqual([size, size, 3 * size * size]);
  const bytes = toBytes(picture);
  return (x: number, y: number) => [...bytes.subarray(3 * (y * size + x), 3 * (y * size + x) + 3)];
};

describe('loading', () => {
  it.each(['png', 'webp', 'jpeg'] as const)('respects all EXIF orientations of %s', async (format) => {
    // Which quadrant of the stored picture is shown top left, top right, bottom left, bottom right (EXIF 2.3, table 6).
    const shown = ['TL TR BL BR', 'TR TL BR BL', 'BR BL TR TL', 'BL BR TL TR'];
    shown.push('TL BL TR BR', 'BL TL BR TR', 'BR TR BL TL', 'TR BR TL BL');
    for (const [i, order] of shown.entries()) {
      const stored = quadrants(32).withMetadata({ orientation: i + 1 });
      const file = await save(`exif.${format}`, stored.toFormat(format, { lossless: true, quality: 100 }).toBuffer());
      const at = await pixelsOf(file, 32);
      const seen = [at(4, 4), at(27, 4), at(4, 27), at(27, 27)].map((pixel) => {
        const near = (corner: string) => Math.max(...QUADRANTS[corner].map((v, c) => Math.abs(v - pixel[c]))) < 8;
        return Object.keys(QUADRANTS).find(near);
      });
      expect(seen.join(' '), `orientation ${i + 1}`).toBe(order);
    }
  });

  it('cuts a square at the position asked for, and does not squash', async () => {
    const wide = await save(
      'wide.png',
      draw(64, 32, (x, y) => [4 * x, 8 * y, 0])
        .png()
        .toBuffer(),
    );
    const tall = await save(
      'tall.png',
      draw(32, 64, (x, y) => [8 * x, 4 * y, 0])
        .png()
        .toBuffer(),
    );
    for (const [position, offset] of [
      [0, 0],
      [0.5, 16],
      [1, 32],
    ]) {
      const left = await pixelsOf(wide, 32, position);
      expect([left(0, 0), left(31, 31)]).toEqual([
        [4 * offset, 0, 0],
        [4 * (offset + 31), 248, 0],
      ]);
      const top = await pixelsOf(tall, 32, position);
      expect([top(0, 0), top(31, 31)]).toEqual([
        [0, 4 * offset, 0],
        [248, 4 * (offset + 31), 0],
      ]);
    }
    // The position is along the longer side as it is shown, not as it is stored.
    const turned = draw(64, 32, (x) => [4 * x, 0, 0]).withMetadata({ orientation: 6 }); // stored left is shown on top
    expect((await pixelsOf(await save('turned.png', turned.png().toBuffer()), 32, 0))(0, 0)).toEqual([0, 0, 0]);
  });

  it('resizes up and down without a shift', async () => {
    const file = await save(
      'ramp.png',
      draw(96, 96, (x) => [2 * x, 100, 0])
        .png()
        .toBuffer(),
    );
    const down = await pixelsOf(file, 32);
    expect(Math.abs(down(16, 16)[0] - 2 * 49)).toBeLessThanOrEqual(1); // output pixel 16 is centred on input 49
    const up = await pixelsOf(file, 192);
    expect(Math.abs(up(100, 100)[0] - 2 * 49.75)).toBeLessThanOrEqual(1);
    expect(down(16, 16)[1]).toBe(100);
  });

  it('puts transparency onto white, and reads gray, palettes and 16 bits', async () => {
    const clear = draw(16, 16, () => [255, 0, 0, 0]);
    expect((await pixelsOf(await save('clear.png', clear.png().toBuffer()), 16))(3, 3)).toEqual([255, 255, 255]);
    const half = draw(16, 16, () => [255, 0, 0, 128]);
    expect((await pixelsOf(await save('half.webp', half.webp({ lossless: true }).toBuffer()), 16))(3, 3)).toEqual([
      255, 127, 127,
    ]);
    const gray = draw(16, 16, () => [90, 90, 90]).toColourspace('b-w');
    expect((await pixelsOf(await save('gray.png', gray.png().toBuffer()), 16))(3, 3)).toEqual([90, 90, 90]);
    const palette = quadrants(16).png({ palette: true });
    expect((await pixelsOf(await save('palette.png', palette.toBuffer()), 16))(12, 3)).toEqual([0, 255, 0]);
    const deep = draw(16, 16, () => [200, 100, 50]).toColourspace('rgb16');
    const deepFile = await save('deep.png', deep.png().toBuffer());
    expect((await sharp(deepFile).metadata()).depth).toBe('ushort');
    expect((await pixelsOf(deepFile, 16))(3, 3)).toEqual([200, 100, 50]);
  });

  it('gives −1 to 1, by channel', async () => {
    const { data } = await loadPicture(
      await save(
        'red.png',
        draw(16, 16, () => [255, 0, 51])
          .png()
          .toBuffer(),
      ),
      16,
    );
    expect([data[0], data[256], data[512]]).toEqual([1, -1, Math.fround(51 / 127.5 - 1)]);
  });
});

/** A PNG or JPEG whose header claims another size than its data has. */
const claim = {
  png: async (width: number, height: number) => {
    const bytes = await quadrants(32).png().toBuffer();
    bytes.writeUInt32BE(width, 16);
    bytes.writeUInt32BE(height, 20);
    bytes.writeInt32BE(crc32(bytes.subarray(12, 29)), 29);
    return bytes;
  },
  jpeg: async (width: number, height: number) => {
    const bytes = await quadrants(32).jpeg().toBuffer();
    const frame = bytes.indexOf(Buffer.of(0xff, 0xc0)); // SOF0: length (2), precision (1), height (2), width (2)
    bytes.writeUInt16BE(height, frame + 5);
    bytes.writeUInt16BE(width, frame + 7);
    return bytes;
  },
};
function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

describe('refusing', () => {
  it('a file that is no picture, or of a kind that is not read', async () => {
    const refused = async (name: string, bytes: Uint8Array | Promise<Uint8Array>, message: string) => {
      const file = await save(name, bytes);
      await expect(loadPicture(file, 16)).rejects.toThrow(`[pictures] ${file}: ${message}`);
    };
    await refused('text.png', Buffer.from('This is not a picture.'), 'it is no picture that can be read');
    await refused('empty.jpg', new Uint8Array(), 'it is empty');
    await refused('gif.png', quadrants(32).gif().toBuffer(), 'it is gif, only JPEG, PNG and WebP are read');
    await refused(
      'none.png',
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"/>'),
      'it is svg',
    );
    await refused(
      'dot.png',
      draw(1, 1, () => [0, 0, 0])
        .png()
        .toBuffer(),
      'it has 1×1 pixels, each side must have at least 16',
    );
    await refused(
      'line.png',
      draw(64, 8, () => [0, 0, 0])
        .png()
        .toBuffer(),
      'it has 64×8 pixels',
    );
    await expect(loadPicture(path.join(folder, 'missing.png'), 16)).rejects.toThrow('missing.png: it cannot be read');
  });

  it('a truncated file', async () => {
    const noisy = draw(64, 64, (x, y) => [(x * y * 7) % 256, (x * 31 + y) % 256, (y * 17) % 256]);
    for (const format of ['png', 'jpeg', 'webp'] as const) {
      const whole = await noisy.toFormat(format).toBuffer();
      for (const share of [0.3, 0.6, 0.95]) {
        const file = await save(`cut.${format}`, whole.subarray(0, Math.floor(share * whole.length)));
        await expect(loadPicture(file, 32), `${format} ${share}`).rejects.toThrow(/\[pictures\] .*cut.*damaged/);
      }
    }
  });

  it('a huge picture from its header alone', async () => {
    for (const [format, make] of Object.entries(claim)) {
      const file = await save(`huge.${format}`, make(30_000, 30_000));
      await expect(loadPicture(file, 32)).rejects.toThrow('it has 30000×30000 pixels, at most 100 million are read');
      const sound = await save(`sound.${format}`, make(32, 32));
      await expect(loadPicture(sound, 32)).resolves.toBeDefined();
    }
  });

  it('damage of any kind with its own error, or not at all', async () => {
    const whole = await quadrants(32).png().toBuffer();
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of changes) bytes[at] = value;
        const file = await save('damaged.png', bytes);
        await loadPicture(file, 16).catch((error: Error) => expect(error.message).toContain('[pictures] '));
      }),
      { numRuns: 200 },
    );
  });
});

describe('folders', () => {
  it('lists pictures in order and warns of the rest', async () => {
    const at = path.join(folder, 'list');
    await mkdir(path.join(at, 'sub'), { recursive: true });
    for (const name of ['b.JPG', 'a.webp', 'c.jpeg', 'd.png', 'notes.txt', 'e.gif', '.DS_Store']) {
      await writeFile(path.join(at, name), '');
    }
    const warnings: string[] = [];
    const files = await listPictures(at, (message) => warnings.push(message));
    expect(files.map((file) => path.basename(file))).toEqual(['a.webp', 'b.JPG', 'c.jpeg', 'd.png']);
    expect(warnings.length).toBe(3);
    expect(warnings.join('\n')).toMatch(/notes\.txt is skipped: only \.jpg, \.jpeg, \.png, \.webp are read/);
    expect(warnings.join('\n')).toMatch(/sub is skipped: it is a folder/);
  });

  it('says what is wrong with one', async () => {
    const empty = path.join(folder, 'empty');
    await mkdir(empty);
    await expect(listPictures(empty)).rejects.toThrow(`[pictures] the folder ${empty} has no pictures: put JPEG`);
    await expect(listPictures(path.join(folder, 'none'))).rejects.toThrow(
      /\[pictures\] cannot read the folder .*none: there is no/,
    );
    await expect(listPictures(await save('file', Buffer.of()))).rejects.toThrow(/file: it is a file: name the folder/);
  });
});

describe('writing', () => {
  it('rounds, clamps and comes back', async () => {
    const bytes = Uint8Array.from({ length: 3 * 16 * 16 }, (_, i) => i % 256);
    const picture = fromBytes(bytes, 16, 16);
    expect(toBytes(picture)).toEqual(bytes);
    expect([...toBytes({ data: Float32Array.of(-3, 0.001, 7), width: 1, height: 1 })]).toEqual([0, 128, 255]);
    const loaded = await loadPicture(await save('written.png', encodePng(picture)), 16);
    expect(loaded).toEqual(picture);
    expect(splitPictures(Float32Array.from([...picture.data, ...picture.data]), [2, 3, 16, 16])).toEqual([
      picture,
      picture,
    ]);
  });

  it('lays out a grid with labels that can be read on a machine without fonts', async () => {
    const colours = [
      [255, 0, 0],
      [0, 255, 0],
      [0, 0, 255],
    ];
    const pictures = colours.map((rgb) =>
      fromBytes(
        Uint8Array.from({ length: 192 }, (_, i) => rgb[i % 3]),
        8,
        8,
      ),
    );
    const layout = { columns: 2, cell: 40, columnLabels: ['before', 'after'], rowLabels: ['a <sks> & cat\u0000', ''] };
    const { data, info } = await sharp(await grid([...pictures, null], { ...layout, title: 'Seed 1' }))
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const at = (x: number, y: number) => [...data.subarray(3 * (y * info.width + x), 3 * (y * info.width + x) + 3)];
    const [left, top] = [info.width - 2 * 46, info.height - 2 * 46];
    expect([at(left + 20, top + 20), at(left + 66, top + 20), at(left + 20, top + 66)]).toEqual(colours);
    expect(at(left + 66, top + 66)).toEqual([232, 232, 232]); // null leaves the ground
    // Ink in each label's box: text was set, without any font of the system.
    const ink = (x0: number, y0: number, x1: number, y1: number) => {
      let dark = 0;
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) if (at(x, y)[0] < 128) dark++;
      return dark;
    };
    expect(ink(0, 0, 100, 30)).toBeGreaterThan(20); // title
    expect(ink(left, top - 22, left + 40, top)).toBeGreaterThan(20); // "before"
    expect(ink(0, top, left, top + 40)).toBeGreaterThan(20); // the first row's label
    expect(ink(0, top + 46, left, top + 86)).toBe(0); // the second's is empty
  });

  it('sets a caption under each picture, with room for the longest', async () => {
    const white = fromBytes(new Uint8Array(192).fill(255), 8, 8);
    const options = { columns: 1, cell: 60, captions: ['a cat with tears of joy', 'a dog'] };
    const size = async (captions: readonly string[]) =>
      (await sharp(await grid([white, white], { ...options, captions })).metadata()).height;
    const rows = 4; // a cat, with, tears of, joy: eight letters in 60 pixels
    expect(await size(options.captions)).toBe((await size([])) + 2 * 15 * rows);
    const { data, info } = await sharp(await grid([white, white], options))
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const dark = (from: number, to: number) =>
      data.subarray(3 * info.width * from, 3 * info.width * to).filter((value) => value < 128).length;
    const [first, second] = [6 + 60, 6 + 60 + 15 * rows + 6 + 60]; // below each picture
    expect(dark(6, first)).toBe(0);
    expect(dark(first, first + 15 * rows)).toBeGreaterThan(100);
    expect(dark(second, second + 15)).toBeGreaterThan(20);
    expect(dark(second + 18, info.height)).toBe(0); // it has one line
  });
});
