/**
 * No kernel has a subgroup's width written in: whatever the width, every operation finds kernels that a compiler accepts
 * and whose workgroups are whole subgroups. `npm run test:adapters` runs them at SwiftShader's width of four.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, Device, isStorageFormat, openDevice, scope, tensor } from '../../engine/index.ts';
import { openNodeDryDevice } from '../../engine/node.ts';
import { guardedDevice } from '../device.ts';
import { makeInputs, operationOf, rows, upload } from './rows.ts';

/** Runs every row's samples, forward and backward, on a device without memory; the texts of the kernels that it took. */
async function kernelsAt(software: boolean, subgroupSize: number): Promise<Map<string, string>> {
  const device = await openNodeDryDevice({ profile: { software, subgroupSize } });
  for (const [name, row] of rows)
    for (const sample of row.samples.filter(({ forwardOnly }) => !forwardOnly))
      scope(device, () => {
        const inputs = makeInputs(sample, 0);
        const trained = (i: number) => inputs[i] && !isStorageFormat(inputs[i].dtype);
        const wanted = row.gradient === 'none' ? [] : row.gradient.filter(trained);
        const result = row.call(operationOf(name), upload(device, inputs, wanted), sample.attributes);
        if (result.tracked) backward(result, tensor(device, new Float32Array(result.size), result.shape));
      });
  return new Map([...device.kernels()].map(({ label, code }) => [label, code]));
}

/** Lanes of a kernel's workgroups, which are a row of them; a constant of the kernel may say how many. */
function workgroupSize(code: string): number {
  const [, lanes] = /@workgroup_size\(\s*(\w+)\s*\)/.exec(code) ?? [];
  const constant = new RegExp(`const ${lanes}(?:: u32)? = (\\d+)u?;`).exec(code);
  return parseInt(constant?.[1] ?? lanes ?? '', 10);
}

describe.each([true, false])('kernels where `software` is %s', (software) => {
  let device: Device;
  beforeAll(async () => {
    device = await guardedDevice();
  });

  it.each([0, 4, 8, 16, 32, 64])('compile for subgroups of %i', async (width) => {
    const kernels = await kernelsAt(software, width);
    expect(kernels.size).toBeGreaterThan(100);
    for (const [label, code] of kernels) {
      if (!code.includes('enable subgroups')) {
        expect(code, label).not.toMatch(/\bsubgroup[A-Z]/);
        continue;
      }
      expect(width, label).toBeGreaterThan(0);
      expect(workgroupSize(code) % width, `${label}: lanes of a workgroup beyond whole subgroups`).toBe(0);
      if (device.profile.subgroupSize === 0) continue; // this adapter's compiler refuses all of them
      const module = device.gpu.createShaderModule({ label, code });
      const { messages } = await module.getCompilationInfo();
      expect(
        messages.filter(({ type }) => type === 'error').map(({ message }) => message),
        label,
      ).toEqual([]);
    }
    const some = [...kernels.values()].some((code) => code.includes('enable subgroups'));
    if (software) expect(some).toBe(width > 0);
  });
});

describe('a subgroup width', () => {
  const profileWith = async (subgroupMinSize: number, subgroupMaxSize: number) => {
    const { gpu } = await openNodeDryDevice();
    const adapter = {
      features: new Set(['subgroups']),
      limits: { maxStorageBuffersPerShaderStage: 16 },
      info: { vendor: 'a', architecture: 'b', device: 'c', description: 'd', subgroupMinSize, subgroupMaxSize },
      requestDevice: () => Promise.resolve(gpu),
    };
    const api = { requestAdapter: () => Promise.resolve(adapter), wgslLanguageFeatures: new Set() };
    const host = { readText: () => Promise.resolve(''), wait: <T>(promise: Promise<T>) => promise, cores: 1 };
    return (await openDevice(api as unknown as GPU, host, {})).profile;
  };

  it('that is fixed is known', async () => {
    expect(await profileWith(16, 16)).toMatchObject({ subgroupSize: 16, software: false });
  });

  it('that varies counts as none', async () => {
    expect(await profileWith(16, 32)).toMatchObject({ subgroupSize: 0 });
  });
});
