/** What plans for an adapter rest on: what it has, what it allows, and what a dispatch, a read and a product cost there. */
import { HostRandom, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, DType } from '../../engine/index.ts';
import { matmul } from '../../kernels/index.ts';
import { measureCeilings } from './ceilings.ts';
import { dispatchCosts } from './dispatch.ts';
import { measure, time } from './measure.ts';

/** Limits that decide what fits and which kernels can run. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupsPerDimension',
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** Side of the product that is timed: enough work for the adapter, and not for minutes. */
const side = ({ profile }: Device): number => (profile.software ? 512 : 4096);

/** The facts in order, a name and a text each. Takes some seconds. */
export async function* adapterFacts(device: Device, seconds: number): AsyncGenerator<readonly [string, string]> {
  const { profile, gpu } = device;
  yield ['adapter', profile.description];
  yield ['software', profile.software ? 'yes' : 'no'];
  yield ['lanes of a subgroup', profile.subgroupSize === 0 ? 'not fixed, or no subgroups' : `${profile.subgroupSize}`];
  const matrices = profile.subgroupMatrix.map(({ M, N, K }) => `${M}×${N}×${K}`);
  yield ['subgroup matrices, f16', matrices.length === 0 ? 'none' : matrices.join(', ')];
  yield ['features', [...gpu.features].sort().join(', ')];
  for (const limit of LIMITS) yield [limit, gpu.limits[limit].toLocaleString('en')];
  for (const { how, dispatches, recorded, done } of await dispatchCosts(device, 10_000))
    yield [
      `${dispatches.toLocaleString('en')} dispatches, ${how}`,
      `${recorded.toFixed(1)} µs each to record, ${done.toFixed(1)} until done`,
    ];
  const one = tensor(device, [1]);
  const read = await time(async () => void (await one.read()), seconds);
  release(one);
  yield ['read-back of 4 bytes', `${(read.ms * 1000).toFixed(0)} µs`];
  const { gflops, gigabytes } = await measureCeilings(device);
  yield ['copy of 64 MiB', `${gigabytes.toFixed(1)} GB/s`];
  yield ['multiply-adds in registers', `${gflops.toFixed(0)} GFLOP/s`];
  const dtypes: DType[] = profile.f16 ? ['f32', 'f16'] : ['f32'];
  for (const dtype of dtypes) {
    const n = side(device);
    const values = new HostRandom(randomKey(0, 'product')).normal(n * n);
    const [a, b] = [tensor(device, values, [n, n], { dtype }), tensor(device, values, [n, n], { dtype })];
    const name = `product of ${n}³, ${dtype}`;
    const run = () => scope(device, () => void matmul(a, b));
    const { measurement } = await measure(device, { name, flops: 2 * n ** 3, run }, { seconds });
    release(a, b);
    yield [name, `${measurement.ms.toFixed(2)} ms, ${measurement.gflops.toFixed(0)} GFLOP/s`];
  }
}
