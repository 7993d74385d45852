/**
 * A device without memory or kernels: it takes a program's every step and does nothing, so that shapes, dispatches and
 * bytes are known before a GPU is asked for them. Values read back are zeros.
 */
import { Device } from './device.ts';
import type { DeviceOptions, Host, Profile } from './device.ts';
import { readSources } from './kernel.ts';

/** What the device that is imitated can do. */
export interface DryOptions extends DeviceOptions {
  readonly profile?: Partial<Profile>;
  readonly limits?: Limits;
}

/** As a large GPU has them: f16, subgroups of 32, bindings of 2 GiB. */
const PROFILE: Profile = {
  description: 'dry run',
  software: false,
  subgroupSize: 32,
  f16: true,
  subgroupMatrix: [],
  workgroupMemory: 32768,
  immediates: true,
  timestamps: false,
  tuning: {},
};
const LIMITS = {
  maxBufferSize: 2 ** 40,
  maxStorageBufferBindingSize: 2 ** 31,
  maxComputeInvocationsPerWorkgroup: 1024,
};

/** Opens a dry device. Import the operations first: their kernels' texts are read here. */
export async function openDryDevice(host: Host, { profile, limits, ...options }: DryOptions = {}): Promise<Device> {
  await readSources((url) => host.readText(url));
  const whole = { ...PROFILE, ...profile };
  return new Device(
    imitation({ ...LIMITS, maxComputeWorkgroupStorageSize: whole.workgroupMemory, ...limits }),
    whole,
    { ...host, wait: (promise) => promise },
    options,
  );
}

/** A dry device that is to `device` as a rehearsal to the performance: the same profile, limits, and thus kernels. */
export const rehearsal = ({ gpu, profile, host, bindingLimit }: Device): Device =>
  new Device(imitation(gpu.limits as unknown as Limits), profile, host, { bindingLimit });

type Limits = Partial<Record<keyof GPUSupportedLimits, number>>;

/** As much of a GPUDevice as the engine calls. */
function imitation(limits: Limits): GPUDevice {
  const nothing = (): void => {};
  const pass = { setPipeline: nothing, setBindGroup: nothing, setImmediates: nothing, dispatchWorkgroups: nothing, end: nothing }; // prettier-ignore
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    clearBuffer: nothing,
    finish: () => ({}),
  };
  const device = {
    limits,
    lost: new Promise<never>(nothing),
    addEventListener: nothing,
    destroy: nothing,
    createBuffer: ({ size }: GPUBufferDescriptor) => ({
      size,
      destroy: nothing,
      unmap: nothing,
      mapAsync: () => Promise.resolve(),
      getMappedRange: (_offset: number, bytes: number) => new ArrayBuffer(bytes),
    }),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipeline: () => ({}),
    createComputePipelineAsync: () => Promise.resolve({}),
    createBindGroup: () => ({}),
    createCommandEncoder: () => encoder,
    queue: { submit: nothing, writeBuffer: nothing, onSubmittedWorkDone: () => Promise.resolve() },
  };
  return device as unknown as GPUDevice;
}
