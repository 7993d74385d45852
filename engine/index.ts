export { compile } from './compile.ts';
export type { Specialised } from './compile.ts';
export { capture, derived, Replay } from './capture.ts';
export type { Parameter } from './capture.ts';
export { Device, DeviceLostError, openDevice } from './device.ts';
export { rehearsal } from './dry.ts';
export type { DeviceOptions, Host, Profile, SubgroupMatrixConfig } from './device.ts';
export { Kernel, preprocess, wgsl } from './kernel.ts';
export type { Defines, KernelSource } from './kernel.ts';
export { ALIGNMENT, mebibytes } from './memory.ts';
export type { Pending, Storage, Usage } from './memory.ts';
export type { Params, Window } from './stream.ts';
export { HostRandom, philox, randomKey } from './random.ts';
export type { Key } from './random.ts';
export { keep, release, scope } from './scope.ts';
export { checkShape, formatShape, sameShape, sizeOf } from './shape.ts';
export type { Shape } from './shape.ts';
export {
  apply,
  backward,
  checkpoint,
  clearGradient,
  Context,
  noGrad,
  operation,
  registerAddition,
  reshape,
} from './tape.ts';
export type { DTypeRule, Operation } from './tape.ts';
export { f16ToF32, f32ToF16 } from './float16.ts';
export {
  BLOCK,
  decode,
  encode,
  formatMultiple,
  isStorageFormat,
  packBlocks,
  scalesOffset,
  STORAGE_FORMATS,
  unpackBlocks,
} from './formats.ts';
export type { Blocks, StorageFormat } from './formats.ts';
export { byteLength, clear, computedDType, copy, empty, requireDType, tensor, Tensor, typed, view, windowOf, write, zeros } from './tensor.ts'; // prettier-ignore
export type { DType, HostArray, TensorOptions } from './tensor.ts';
