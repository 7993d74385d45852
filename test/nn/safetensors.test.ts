import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors, saveSafetensors } from '../../nn/files.ts';
import {
  bytesSource,
  encodeSafetensors,
  readSafetensors,
  SafetensorsError,
  type ByteSource,
  type Writable,
} from '../../nn/safetensors.ts';

/** A file from its header's text and data. */
function file(header: unknown, data: ArrayLike<number> = []): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + json.length + data.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  out.set(data, 8 + json.length);
  return out;
}

const read = (bytes: Uint8Array) => readSafetensors(bytesSource(bytes, 'bad.safetensors'));
const eight = [0, 1, 2, 3, 4, 5, 6, 7];
const f32 = (shape: unknown, start: unknown, end: unknown) => ({ dtype: 'F32', shape, data_offsets: [start, end] });

async function encode(tensors: [string, Writable][], metadata?: Record<string, string>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of encodeSafetensors(new Map(tensors), metadata)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe('reading', () => {
  it('reads every type', async () => {
    const data: Record<string, { dtype: string; array: ArrayBufferView; values: number[] }> = {
      f64: { dtype: 'F64', array: Float64Array.of(0.1, -2), values: [Math.fround(0.1), -2] },
      f32: { dtype: 'F32', array: Float32Array.of(1.5, -0), values: [1.5, -0] },
      f16: { dtype: 'F16', array: Uint16Array.of(0x3c00, 0x8001), values: [1, -(2 ** -24)] },
      bf16: { dtype: 'BF16', array: Uint16Array.of(0x3f80, 0xc049), values: [1, -3.140625] },
      i64: { dtype: 'I64', array: BigInt64Array.of(-5n, 2147483647n), values: [-5, 2147483647] },
      i32: { dtype: 'I32', array: Int32Array.of(-1, 7), values: [-1, 7] },
      i16: { dtype: 'I16', array: Int16Array.of(-300, 300), values: [-300, 300] },
      i8: { dtype: 'I8', array: Int8Array.of(-128, 127), values: [-128, 127] },
      u8: { dtype: 'U8', array: Uint8Array.of(0, 255), values: [0, 255] },
      bool: { dtype: 'BOOL', array: Uint8Array.of(0, 1), values: [0, 1] },
    };
    const header: Record<string, unknown> = {};
    const bytes: number[] = [];
    // In this order the later tensors are not aligned, as in files that others wrote.
    for (const [name, { dtype, array }] of Object.entries(data).reverse()) {
      header[name] = { dtype, shape: [2], data_offsets: [bytes.length, bytes.length + array.byteLength] };
      bytes.push(...new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    }
    const opened = await read(file(header, bytes));
    for (const [name, { values }] of Object.entries(data)) expect([...(await opened.read(name))], name).toEqual(values);
    await expect(opened.floats('i8')).rejects.toThrow('tensor "i8" is I8, where a floating-point type is needed');
    await expect(opened.integers('f16')).rejects.toThrow('tensor "f16" is F16, where an integer type is needed');
    expect(() => opened.info('w')).toThrow('[safetensors] bad.safetensors: there is no tensor "w" in it');
  });

  it('narrows I64 with a check', async () => {
    for (const value of [2n ** 31n, -(2n ** 31n) - 1n, 2n ** 63n - 1n, 2n ** 32n]) {
      const bytes = new Uint8Array(BigInt64Array.of(0n, value).buffer);
      const opened = await read(file({ i: { dtype: 'I64', shape: [2], data_offsets: [0, 16] } }, bytes));
      await expect(opened.integers('i')).rejects.toThrow(`"i" has the value ${value} at element 1, which does not fit`);
    }
  });

  it('reads scalars, empty tensors and an empty file', async () => {
    const opened = await read(
      file({ s: f32([], 0, 4), e: f32([3, 0], 4, 4), e2: f32([0], 0, 0), v: f32([1], 4, 8) }, eight),
    );
    expect((await opened.floats('s')).length).toBe(1);
    expect((await opened.floats('e')).length).toBe(0);
    expect((await read(file({}))).tensors.size).toBe(0);
    expect((await read(file('{}   '))).tensors.size).toBe(0); // padded with spaces
  });

  it('accepts names that are not safe as plain keys', async () => {
    const opened = await read(file('{"__proto__":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', eight));
    expect(opened.info('__proto__').shape).toEqual([2]);
    const bytes = await encode([['__proto__', { dtype: 'F32', shape: [], data: Float32Array.of(3) }]]);
    expect([...(await (await read(bytes)).floats('__proto__'))]).toEqual([3]);
  });

  const good = file({ a: f32([2], 0, 8) }, eight);
  const hugeHeader = (length: bigint) => {
    const bytes = good.slice();
    new DataView(bytes.buffer).setBigUint64(0, length, true);
    return bytes;
  };
  const bad: [string, Uint8Array, string][] = [
    ['an empty file', new Uint8Array(), '0 bytes are too few'],
    ['seven bytes', good.slice(0, 7), '7 bytes are too few'],
    ['a cut header', good.slice(0, 20), 'it is truncated: the header ends at byte 62, the file at byte 20'],
    ['cut data', good.slice(0, -1), 'tensor "a" ends at byte 8 of the data, of which there are 7'],
    ['a byte too many', Buffer.concat([good, Uint8Array.of(0)]), '1 bytes follow tensor "a"'],
    ['bytes after no tensor', file({}, eight), '8 bytes follow the header'],
    ['a header longer than the file', hugeHeader(1000n), 'it is truncated'],
    [
      'a header length of 2⁶⁴−1',
      hugeHeader(2n ** 64n - 1n),
      'would have 18446744073709551615 bytes, at most 100000000',
    ],
    ['a header length past 2⁵³', hugeHeader(2n ** 53n + 1n), 'would have 9007199254740993 bytes'],
    ['broken JSON', file('{"a":'), 'its header is not JSON'],
    ['invalid UTF-8', Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff), 'its header is not JSON in UTF-8'],
    ['a list for a header', file('[]'), 'must be a JSON object'],
    ['space before the header', file(' {}'), 'must be a JSON object beginning with "{"'],
    ['a number for metadata', file({ __metadata__: { a: 1 } }), '"__metadata__" must be an object of strings'],
    ['a key twice', file('{"a":{},"b":"a","a":{}}'), 'its header has the key "a" twice'],
    ['a key twice, escaped', file('{"a":{},"\\u0061":{}}'), 'its header has the key "\\u0061" twice'],
    ['an inner key twice', file('{"a":{"dtype":"F32","dtype":"F16"}}'), 'its header has the key "dtype" twice'],
    ['an entry that is none', file({ a: 1 }), 'tensor "a" must be an object'],
    ['an unknown field', file({ a: { ...f32([2], 0, 8), strides: [1] } }, eight), 'has an unknown field "strides"'],
    [
      'no dtype',
      file({ a: { shape: [2], data_offsets: [0, 8] } }, eight),
      'tensor "a" has dtype missing; known are F64,',
    ],
    ['an unknown dtype', file({ a: { ...f32([2], 0, 8), dtype: 'F8_E4M3' } }, eight), 'has dtype "F8_E4M3"; known are'],
    ['an inherited dtype', file({ a: { ...f32([2], 0, 8), dtype: 'toString' } }, eight), 'has dtype "toString"'],
    ['a negative size', file({ a: f32([-2], 0, 8) }, eight), 'has shape [-2]; it must be a list of integers'],
    ['two negative sizes', file({ a: f32([-2, -1], 0, 8) }, eight), 'has shape [-2,-1]'],
    ['a fractional size', file({ a: f32([0.5, 4], 0, 8) }, eight), 'has shape [0.5,4]'],
    ['a size as text', file({ a: f32(['2'], 0, 8) }, eight), 'has shape ["2"]'],
    ['a shape that overflows', file({ a: f32([2 ** 40, 2 ** 40], 0, 8) }, eight), 'whose size is beyond counting'],
    ['an overflow to the right size', file({ a: f32([2 ** 62, 2], 0, 8) }, eight), 'has shape [4611686018427388000,2]'],
    [
      'a shape of other size',
      file({ a: f32([3], 0, 8) }, eight),
      'of shape (3) and type F32 needs 12 bytes, its range has 8',
    ],
    ['start after end', file({ a: f32([2], 8, 0) }, eight), 'has data_offsets [8,0]'],
    ['a negative offset', file({ a: f32([2], -8, 0) }, eight), 'has data_offsets [-8,0]'],
    [
      'three offsets',
      file({ a: { dtype: 'F32', shape: [2], data_offsets: [0, 4, 8] } }, eight),
      'data_offsets [0,4,8]',
    ],
    ['offsets past the end', file({ a: f32([4], 0, 16) }, eight), 'ends at byte 16 of the data, of which there are 8'],
    ['offsets past counting', file({ a: f32([2], 0, 2 ** 60) }, eight), 'has data_offsets [0,1152921504606847000]'],
    ['an overlap', file({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, eight), 'starts at byte 119 and overlaps tensor "a"'],
    ['the same range twice', file({ a: f32([2], 0, 8), b: f32([2], 0, 8) }, eight), 'overlaps tensor "a"'],
    ['a gap', file({ b: f32([1], 8, 12), a: f32([1], 0, 4) }, [...eight, 0, 0, 0, 0]), 'leaves a gap after tensor "a"'],
    ['a gap at the start', file({ a: f32([1], 4, 8) }, eight), 'leaves a gap after the header'],
    ['deep nesting', file(`{"a":{"dtype":${'['.repeat(1e6)}${']'.repeat(1e6)}}}`), 'nested too deeply to show'],
    ['a long name', file({ ['x'.repeat(1e7)]: 1 }), 'must be an object'],
  ];
  it.each(bad)('refuses %s', async (_, bytes, message) => {
    const error = await read(bytes).then(
      () => expect.fail('it was accepted'),
      (e: unknown) => e as Error,
    );
    expect(error).toBeInstanceOf(SafetensorsError);
    expect(error.message).toContain('[safetensors] bad.safetensors: ');
    expect(error.message).toContain(message);
  });

  it('reads nothing from the data before the header is found good, and no header over the limit', async () => {
    const ranges: number[][] = [];
    const spy = (bytes: Uint8Array, size = bytes.length): ByteSource => ({
      ...bytesSource(bytes),
      size,
      read: (start, end) => (ranges.push([start, end]), Promise.resolve(bytes.slice(start, end))),
    });
    await readSafetensors(spy(good));
    expect(ranges).toEqual([
      [0, 8],
      [8, 62],
    ]);
    ranges.length = 0;
    await expect(readSafetensors(spy(hugeHeader(200_000_000n), 2 ** 40))).rejects.toThrow('at most 100000000');
    expect(ranges).toEqual([[0, 8]]);
  });
});

const shapes = fc.array(fc.nat(5), { maxLength: 4 });
const tensors = fc.uniqueArray(
  fc.tuple(
    fc.string({ minLength: 1, unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    fc.constantFrom('F32', 'F16', 'I64', 'I32'),
    shapes.chain((shape) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return fc.record({
        shape: fc.constant(shape),
        // Multiples of 1/8 up to 256 are exact in binary16.
        values: fc.array(fc.integer({ min: -2048, max: 2047 }), { minLength: size, maxLength: size }),
      });
    }),
  ),
  { selector: ([name]) => name, maxLength: 6 },
);
const writables = tensors.map((list) =>
  list.map(([name, dtype, { shape, values }]): [string, Writable] => {
    const data = dtype[0] === 'F' ? Float32Array.from(values, (v) => v / 8) : Int32Array.from(values);
    return [name, { dtype: dtype as Writable['dtype'], shape, data }];
  }),
);

describe('writing', () => {
  it('round-trips any tensors, aligned and in the same bytes whatever their order', async () => {
    const metadata = fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(writables, metadata, async (list, metadata) => {
        const bytes = await encode(list, metadata);
        expect(Buffer.compare(bytes, await encode(list.toReversed(), metadata))).toBe(0);
        const opened = await read(bytes);
        expect(opened.metadata).toEqual({ ...metadata });
        expect(opened.tensors.size).toBe(list.length);
        for (const [name, { dtype, shape, data }] of list) {
          const info = opened.info(name);
          expect(info).toMatchObject({ dtype, shape });
          expect(info.start % { F32: 4, F16: 2, I64: 8, I32: 4 }[dtype]).toBe(0);
          expect(await opened.read(name)).toEqual(data);
        }
      }),
    );
  });

  it('asks for a tensor when its turn comes', async () => {
    const asked: string[] = [];
    const lazy = (name: string): [string, Writable] => [
      name,
      { dtype: 'F32', shape: [1], data: () => (asked.push(name), Promise.resolve(Float32Array.of(1))) },
    ];
    const chunks = encodeSafetensors(new Map([lazy('a'), lazy('b')]));
    await chunks.next();
    expect(asked).toEqual([]);
    await chunks.next();
    expect(asked).toEqual(['a']);
  });

  it('refuses data that does not fit its shape or type', async () => {
    const one = Float32Array.of(1);
    const tensor = (dtype: Writable['dtype'], shape: number[], data: Writable['data']) =>
      encode([['w', { dtype, shape, data }]]);
    await expect(tensor('F32', [2, 3], one)).rejects.toThrow('"w" of shape (2, 3) needs 6 values, there are 1');
    await expect(tensor('I32', [1], one)).rejects.toThrow('"w" has floats, which cannot be written as I32');
    await expect(tensor('F16', [1], Int32Array.of(1))).rejects.toThrow(
      '"w" has integers, which cannot be written as F16',
    );
    await expect(encode([['__metadata__', { dtype: 'F32', shape: [1], data: one }]])).rejects.toThrow('cannot be a');
  });
});

describe('damage', () => {
  it('never surfaces as anything but a SafetensorsError', async () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    const cut = fc.option(fc.nat(), { freq: 3 });
    await fc.assert(
      fc.asyncProperty(writables, damage, cut, async (list, changes, cut) => {
        let bytes = new Uint8Array(await encode(list, { format: 'pt' }));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        if (cut !== null) bytes = bytes.slice(0, cut % bytes.length);
        try {
          const opened = await read(bytes);
          for (const name of opened.tensors.keys()) await opened.read(name);
        } catch (error) {
          if (!(error instanceof SafetensorsError)) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('files', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'safetensors-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('writes and reads a file', async () => {
    const name = path.join(folder, 'model.safetensors');
    await saveSafetensors(name, new Map([['w', { dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) }]]), {
      format: 'pt',
    });
    const opened = await openSafetensors(name);
    expect([...(await opened.floats('w'))]).toEqual([1, 2]);
    expect(opened.metadata).toEqual({ format: 'pt' });
    await opened.close();
    expect(await readdir(folder)).toEqual(['model.safetensors']);
  });

  it('names the file that is missing, a folder or damaged', async () => {
    await expect(openSafetensors(path.join(folder, 'none'))).rejects.toThrow(
      /cannot open .*none: there is no such file or folder/,
    );
    await expect(openSafetensors(folder)).rejects.toThrow('is not a file');
    const name = path.join(folder, 'cut.safetensors');
    await writeFile(name, file({ a: f32([2], 0, 8) }, eight).slice(0, 30));
    await expect(openSafetensors(name)).rejects.toThrow(`[safetensors] ${name}: it is truncated`);
  });

  it('reads what the reference implementation wrote', async () => {
    const golden = new URL('../goldens/schedulers/', import.meta.url).pathname;
    const opened = await openSafetensors(`${golden}outputs.safetensors`);
    expect(opened.info('ddim_eta0.10.timesteps')).toMatchObject({ dtype: 'I64', shape: [10] });
    expect([...(await opened.integers('ddim_eta0.10.timesteps'))].slice(0, 3)).toEqual([901, 801, 701]);
    await opened.close();
    // Same tensors, same order, same padding: our writer gives the reference's file byte for byte.
    const inputs = await openSafetensors(`${golden}inputs.safetensors`);
    const copy = new Map<string, Writable>();
    for (const [name, { dtype, shape }] of inputs.tensors) {
      copy.set(name, { dtype: dtype as Writable['dtype'], shape, data: await inputs.read(name) });
    }
    await saveSafetensors(path.join(folder, 'copy'), copy, inputs.metadata);
    await inputs.close();
    const [ours, theirs] = await Promise.all([
      readFile(path.join(folder, 'copy')),
      readFile(`${golden}inputs.safetensors`),
    ]);
    expect(Buffer.compare(ours, theirs)).toBe(0);
  });
});
