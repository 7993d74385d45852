/**
 * The kernel for subgroup matrices, on adapters without them: its arithmetic, with the matrices' functions emulated; and
 * Dawn's front end must accept its text in every form, on the null backend, which has the feature and computes nothing.
 */
import { create } from 'webgpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, Device, HostRandom, randomKey, release, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { KernelSource, Shape, SubgroupMatrixConfig, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { conv2d, linear, matmul } from '../../kernels/index.ts';
import { matrixBytes, matrixConfig } from '../../kernels/matmul/matrix.ts';
import { guardedDevice } from '../device.ts';
import { expectClose } from './row.ts';

/** As GPUs have them. */
const LARGER: SubgroupMatrixConfig = { componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 };
/** As wide as the software adapter's subgroups, so that a lane has one column of each matrix. */
const SIZE = 8;
const CONFIG: SubgroupMatrixConfig = { componentType: 'f16', resultComponentType: 'f32', M: SIZE, N: SIZE, K: SIZE };

const EMULATION = `
alias Matrix = array<f32, ${SIZE}>; // the rows' elements in this lane's column
var<private> column: u32;

fn load_tile_a_row_major(at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var r = 0u; r < ${SIZE}u; r++) { m[r] = f32(tile_a[at + r * stride + column]); }
  return m;
}
fn load_tile_a_col_major(at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var r = 0u; r < ${SIZE}u; r++) { m[r] = f32(tile_a[at + column * stride + r]); }
  return m;
}
fn load_tile_b_row_major(at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var r = 0u; r < ${SIZE}u; r++) { m[r] = f32(tile_b[at + r * stride + column]); }
  return m;
}
fn load_tile_b_col_major(at: u32, stride: u32) -> Matrix {
  var m: Matrix;
  for (var r = 0u; r < ${SIZE}u; r++) { m[r] = f32(tile_b[at + column * stride + r]); }
  return m;
}
fn multiply_accumulate(left: Matrix, right: Matrix, sums: Matrix) -> Matrix {
  var result = sums;
  for (var r = 0u; r < ${SIZE}u; r++) {
    for (var k = 0u; k < ${SIZE}u; k++) { result[r] += subgroupShuffle(left[r], k) * right[k]; }
  }
  return result;
}
fn store_row_major(at: u32, m: Matrix, stride: u32) {
  for (var r = 0u; r < ${SIZE}u; r++) { results[at + r * stride + column] = m[r]; }
}
`;

function emulated(text: string): string {
  const replaced = text
    .replace(/^enable chromium_experimental_subgroup_matrix;$/m, '')
    .replace(/subgroup_matrix_(left|right|result)<[^>]*>/g, 'Matrix')
    .replace(/subgroupMatrixLoad<Matrix, (row|col)_major>\(&(\w+), /g, 'load_$2_$1_major(')
    .replace(/subgroupMatrixMultiplyAccumulate\(/g, 'multiply_accumulate(')
    .replace(/subgroupMatrixStore<row_major>\(&results, /g, 'store_row_major(')
    .replace('let across =', 'column = lane;\n  let across =');
  expect(replaced).not.toContain('subgroupMatrix');
  return replaced + EMULATION;
}

interface Case {
  readonly name: string;
  readonly shapes: readonly Shape[];
  readonly run: (inputs: Tensor[]) => Tensor;
}

/** Products of more than a tile, with edges, whichever way the operands lie; batches; and what is added on the way. */
const cases: Case[] = [
  ...[false, true].flatMap((transposeA) =>
    [false, true].map((transposeB) => ({
      name: `${transposeA ? 'Aᵀ' : 'A'} · ${transposeB ? 'Bᵀ' : 'B'}`,
      shapes: [transposeA ? [36, 68] : [68, 36], transposeB ? [72, 36] : [36, 72]],
      run: ([a, b]: Tensor[]) => matmul(a!, b!, { transposeA, transposeB }),
    })),
  ),
  { name: 'a batch with a shared A', shapes: [[40, 32], [2, 32, 36]], run: ([a, b]) => matmul(a!, b!) },
  { name: 'a linear layer', shapes: [[3, 36, 40], [68, 40], [68]], run: ([x, w, b]) => linear(x!, w!, b!) },
  {
    name: 'a 1×1 convolution',
    shapes: [[2, 32, 6, 6], [36, 32, 1, 1], [36]],
    run: ([x, w, b]) => conv2d(x!, w!, b!),
  },
]; // prettier-ignore

/** The result in f16 and the gradients by all inputs. */
function record(device: Device, { shapes, run }: Case): Tensor[] {
  return scope(device, () => {
    const inputs = shapes.map((shape, i) => {
      const values = new HostRandom(randomKey(i, 'inputs')).normal(sizeOf(shape));
      return Object.assign(tensor(device, values, shape, { dtype: 'f16' }), { requiresGrad: true });
    });
    const out = run(inputs);
    const upstream = new HostRandom(randomKey(9, 'upstream')).normal(out.size);
    backward(out, tensor(device, upstream, out.shape, { dtype: 'f16' }));
    return [out, ...inputs.map(({ grad }) => grad!)];
  });
}

const matrixKernels = (device: Device) => [...device.kernels()].filter(({ source }) => source.name === 'matmul_matrix');

describe('subgroup matrices', () => {
  let plain: Device;
  let instance: GPU; // once collected, the process would crash
  let source: KernelSource;

  beforeAll(async () => {
    plain = await guardedDevice();
    const toggles = 'enable-dawn-features=allow_unsafe_apis,use_vulkan_memory_model,vulkan_enable_f16_on_nvidia';
    instance = create([toggles, 'backend=null']);
  });
  afterAll(() => expect(instance).toBeDefined());

  it("pass Dawn's front end", async () => {
    const adapter = (await instance.requestAdapter())!;
    const features = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[];
    const gpu = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: { maxImmediateSize: 64 } });
    const profile = { ...plain.profile, software: false, subgroupSize: 32, subgroupMatrix: [CONFIG] };
    const device = new Device(gpu, profile, plain.host, {});
    for (const each of cases) record(device, each);
    await device.drain(); // throws what the device found wrong
    const kernels = matrixKernels(device);
    source = kernels[0]!.source;
    const forms = kernels.map(({ defines }) =>
      ['TRANSPOSE_A', 'TRANSPOSE_B', 'BIAS', 'BIAS_COLUMN', 'ROW_SUM'].map((name) => Number(defines[name])).join(''),
    );
    expect(forms.sort()).toEqual(['00000', '00110', '01000', '01001', '01100', '10000', '10001', '11000']);
    device.destroy();
  });

  it('are chosen as large as the workgroup memory allows', () => {
    const most = (workgroupMemory: number) => matrixConfig({ ...plain.profile, subgroupMatrix: [CONFIG, LARGER], workgroupMemory }); // prettier-ignore
    expect([2 ** 15, 28_672, 28_671, 12_288, 12_287].map((bytes) => most(bytes)?.M)).toEqual([16, 16, 8, 8, undefined]);
  });

  describe('emulated', () => {
    let device: Device;
    beforeAll(async () => {
      source.text = emulated(source.text!);
      device = await openNodeDevice({ guard: true });
      device.profile.subgroupMatrix = [CONFIG];
    });
    afterAll(async () => {
      await device.checkGuards();
      device.destroy();
    });

    it.each(cases.map((each) => [each.name, each] as const))('%s', async (_, each) => {
      const [results, expected] = [record(device, each), record(plain, each)];
      for (const [i, result] of results.entries()) {
        // Both add in f32 and round once to f16, by 2⁻¹¹ at most each.
        const values = Float64Array.from(await expected[i]!.read());
        expectClose(`result ${i}`, await result.read(), { shape: result.shape, data: values }, 2 ** -10);
      }
      release(...results, ...expected);
    });

    it('take the workgroup memory that is counted: Dawn refuses them where there is less', async () => {
      const bytes = matrixBytes(LARGER);
      const run = async (workgroupMemory: number, said: number): Promise<number> => {
        const other = await openNodeDevice({ workgroupMemory });
        Object.assign(other.profile, { subgroupMatrix: [LARGER], workgroupMemory: said });
        try {
          const [a, b] = [0, 1].map(() => tensor(other, new Float32Array(32 * 32), [32, 32], { dtype: 'f16' }));
          await matmul(a!, b!, { transposeB: true }).read(); // so both pieces are as large as they get
          return matrixKernels(other).length;
        } finally {
          other.destroy();
        }
      };
      expect(await run(bytes, bytes)).toBe(1);
      expect(await run(bytes - 1, bytes - 1)).toBe(0);
      await expect(run(bytes - 1, bytes)).rejects.toThrow(/workgroup/i);
    });

    it('run as such', () => expect(matrixKernels(device).length).toBe(matrixKernels(plain).length + 8));
  });
});
