import { Device } from '../../engine/index.ts';

/** A device that makes no buffers: for counting the parameters of models that are too large to build in a test. */
export function countingDevice(): Device {
  const gpu = {
    lost: new Promise(() => {}),
    addEventListener() {},
    limits: { maxBufferSize: Infinity },
    createBuffer: () => ({}),
  } as unknown as GPUDevice;
  const profile = {
    description: '',
    software: true,
    subgroupSize: 0,
    f16: false,
    subgroupMatrix: [],
    immediates: true,
    timestamps: false,
    tuning: {},
  };
  const nowhere = () => {
    throw new Error('this device computes nothing');
  };
  return new Device(gpu, profile, { readText: nowhere, wait: nowhere }, {});
}

/** Bytes that somebody holds. Attention's lists of key blocks are not counted: they are made once and stay. */
export function heldBytes(device: Device): number {
  return device.memory.live - (device.memory.usage.get('attention lists')?.live ?? 0);
}
