import { Kernel, readSources } from './kernel.ts';
import type { Defines, KernelSource } from './kernel.ts';
import { checkGuard, GUARD_BYTES, mebibytes, Pool, sizeClass } from './memory.ts';
import type { PoolOptions } from './memory.ts';
import { MAX_IMMEDIATE_BYTES, Stream } from './stream.ts';
import type { Params, Window } from './stream.ts';
import type { Scope } from './scope.ts';
import { formatShape } from './shape.ts';
import type { Tensor } from './tensor.ts';

/** An M×K matrix times a K×N one, and the types of their elements and of the result's, as the adapter names them. */
export interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Names of variants of kernels by family. */
export type Tuning = Readonly<Record<string, string>>;

/** What kernels may rely on; variants are chosen by this alone, never by a vendor's name. */
export interface Profile {
  /** As people know the adapter: for logs and records. */
  description: string;
  /** A processor pretends to be a GPU: barriers and loads whose address differs by lane are dear there. */
  software: boolean;
  /** Lanes of a subgroup where the adapter has subgroups of one fixed width, else 0. */
  subgroupSize: number;
  f16: boolean;
  /** Matrices that a subgroup multiplies at once ("tensor cores"); empty where it can't. */
  subgroupMatrix: readonly SubgroupMatrixConfig[];
  /** Bytes of workgroup memory that a kernel may have. */
  workgroupMemory: number;
  immediates: boolean;
  timestamps: boolean;
  /** Variants that were measured to be the fastest on this very adapter, by family of kernels: they override the rules. */
  tuning: Tuning;
}

export interface DeviceOptions extends PoolOptions {
  /** Features to do without, for tests of the variants that lack them. */
  without?: readonly ('subgroups' | 'f16' | 'immediates')[];
  /** Variants of kernels to run, by family, instead of those that the tuning file names. */
  tuning?: Tuning;
  /** Bytes that a kernel may bind at once where the adapter allows more, for tests of what goes by windows. */
  bindingLimit?: number;
  /** Bytes of workgroup memory that a kernel may have where the adapter allows more, for tests: WebGPU guarantees 16,384. */
  workgroupMemory?: number;
}

/** What differs between hosts: reading a kernel's text, what tuning found, and waiting without starving the loop. */
export interface Host {
  readText(url: URL): Promise<string>;
  /** `Profile.tuning` of the adapter of this description. */
  tuning?(adapter: string): Promise<Tuning>;
  wait<T>(promise: Promise<T>): Promise<T>;
  /** Collects garbage, where that can be asked for. */
  collect?(): void;
  /** Processor cores: a software adapter compiles on as many at once. */
  readonly cores: number;
}

/** Thrown when the adapter is gone: reset, removed, or out of memory. */
export class DeviceLostError extends Error {
  constructor(reason: string) {
    super(
      `[device] the GPU device was lost (${reason}); what it held is gone. Restart, and resume from the last checkpoint`,
    );
    this.name = 'DeviceLostError';
  }
}

/** A GPU with its memory and command stream. Open one a process. */
export class Device {
  readonly gpu: GPUDevice;
  readonly profile: Profile;
  readonly memory: Pool;
  readonly stream: Stream;
  /** Bytes of a tensor that a kernel can bind at once; operations on larger ones go by windows, or refuse. */
  readonly bindingLimit: number;
  /** Pipelines compiled so far: constant in a steady training step. */
  pipelines = 0;
  /** Innermost open scope; see `scope`. */
  scope: Scope | null = null;
  /** Whether operations record on the tape; see `noGrad`. */
  recording = true;
  readonly host: Host;
  readonly #kernels = new Map<KernelSource, Map<string, Kernel>>();
  readonly #staging = new Map<number, GPUBuffer[]>();
  #failure: Error | null = null;
  /** Rejects what waits for the device, when it is lost. */
  readonly #waiting = new Set<(error: Error) => void>();

  /** Opens another device on the same adapter, for compiling; see `compile`. */
  readonly openSibling: () => Promise<GPUDevice>;

  constructor(
    gpu: GPUDevice,
    profile: Profile,
    host: Host,
    options: DeviceOptions,
    openSibling = () => Promise.resolve(gpu),
  ) {
    this.openSibling = openSibling;
    this.gpu = gpu;
    this.profile = profile;
    this.host = host;
    this.bindingLimit = Math.min(options.bindingLimit ?? Infinity, gpu.limits.maxStorageBufferBindingSize);
    this.memory = new Pool(gpu, options);
    this.stream = new Stream(gpu, () => host.collect?.());
    this.memory.onHostWrite = (block) => this.stream.beforeHostWrite(block);
    this.memory.onTrim = () => {
      this.stream.flush();
      this.stream.forgetBindGroups();
    };
    void gpu.lost.then((info) => {
      this.#failure = new DeviceLostError(info.message || info.reason);
      for (const reject of this.#waiting) reject(this.#failure);
    });
    gpu.addEventListener('uncapturederror', (event) => {
      this.#failure ??= new Error(`[device] ${event.error.message}`);
    });
  }

  /** A kernel specialised by `defines`; the same ones give the same object. */
  kernel(source: KernelSource, defines: Defines = {}): Kernel {
    let variants = this.#kernels.get(source);
    if (!variants) this.#kernels.set(source, (variants = new Map<string, Kernel>()));
    let key = '';
    for (const name in defines) key += `${name}=${String(defines[name])};`;
    let kernel = variants.get(key);
    if (!kernel) {
      kernel = new Kernel(this.gpu, source, defines, {
        immediates: this.profile.immediates,
        onCompile: () => this.pipelines++,
      });
      variants.set(key, kernel);
    }
    return kernel;
  }

  /** Every kernel asked for so far, with the source it comes from. */
  *kernels(): Iterable<Kernel> {
    for (const variants of this.#kernels.values()) yield* variants.values();
  }

  /**
   * Records a dispatch of `kernel` over `tensors`, in binding order. `groups` is a number of workgroups, folded into
   * (x, y) past 65,535 (kernels take `wg.x + wg.y * groups.x`), or the three counts themselves. Throws where a tensor is
   * larger than what the adapter can bind: such a tensor can be written, copied and read, but no kernel sees it.
   */
  run(
    kernel: Kernel,
    tensors: readonly Tensor[],
    params: Params,
    groups: number | readonly [number, number, number],
  ): void {
    const windows = tensors.map((tensor) => this.bindable(tensor, kernel.label));
    this.dispatch(kernel, windows, params, groups);
  }

  /** The same over windows. */
  dispatch(
    kernel: Kernel,
    windows: readonly Window[],
    params: Params,
    groups: number | readonly [number, number, number],
  ): void {
    if (this.#failure) throw this.#failure;
    const grid = typeof groups === 'number' ? fold(groups) : groups;
    if (grid[0] === 0 || grid[1] === 0 || grid[2] === 0) return;
    this.stream.dispatch(kernel, windows, params, grid);
  }

  /** A tensor's window, for `kernel`. Throws where it is larger than what the adapter can bind. */
  bindable(tensor: Tensor, kernel: string): Window {
    const window = tensor.window();
    if (window.bytes > this.bindingLimit)
      throw new Error(
        `[${kernel}] ${formatShape(tensor.shape)} takes ${mebibytes(window.bytes)}, more than the ` +
          `${mebibytes(this.bindingLimit)} that can be bound at once here. Lower the batch, or compute it in parts`,
      );
    return window;
  }

  /** Reads bytes back; everything recorded before is done first. */
  async read(window: Window, bytes: number): Promise<ArrayBuffer> {
    if (bytes === 0) return new ArrayBuffer(0);
    const size = sizeClass(bytes, this.gpu.limits.maxBufferSize);
    const staging =
      this.#staging.get(size)?.pop() ??
      this.gpu.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const padded = Math.ceil(bytes / 4) * 4;
    this.stream.stage(window, staging, padded);
    await this.#settle(staging.mapAsync(GPUMapMode.READ, 0, padded));
    const copy = staging.getMappedRange(0, padded).slice(0, bytes);
    staging.unmap();
    const list = this.#staging.get(size);
    if (list) list.push(staging);
    else this.#staging.set(size, [staging]);
    return copy;
  }

  /** Submits and waits until the device has nothing left to do. */
  async drain(): Promise<void> {
    this.stream.flush();
    await this.#settle(this.gpu.queue.onSubmittedWorkDone());
  }

  /** Throws where a kernel wrote behind a buffer's end (devices opened with `guard`). */
  async checkGuards(): Promise<void> {
    for (const block of this.memory.blocks()) {
      // The last `vec4f` of a tensor may be written whole.
      const offset = Math.ceil(block.used / 16) * 16;
      const bytes = block.bytes + GUARD_BYTES - offset;
      const tail = await this.read({ block, offset, bytes }, bytes);
      checkGuard(block, new Uint32Array(tail));
    }
  }

  destroy(): void {
    this.stream.forgetBindGroups();
    this.gpu.destroy();
  }

  async #settle<T>(promise: Promise<T>): Promise<T> {
    // Not Promise.race with `lost`: each race would leave its reactions behind on that promise, for good.
    let abandon: (error: Error) => void = () => {};
    const settled = new Promise<T>((resolve, reject) => {
      abandon = reject;
      promise.then(resolve, reject);
    });
    this.#waiting.add(abandon);
    try {
      const result = await this.host.wait(settled);
      if (this.#failure) throw this.#failure;
      return result;
    } catch (error) {
      throw this.#failure ?? error;
    } finally {
      this.#waiting.delete(abandon);
    }
  }
}

const subgroupMatrixConfigs = (info: GPUAdapterInfo): SubgroupMatrixConfig[] =>
  [...((info as { subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> }).subgroupMatrixConfigs ?? [])].map(
    ({ componentType, resultComponentType, M, N, K }) => ({ componentType, resultComponentType, M, N, K }),
  );

/** Most buffers that a kernel binds (attention's gradients with a mask); WebGPU guarantees eight. */
const STORAGE_BUFFERS = 10;

function fold(groups: number): [number, number, number] {
  if (groups <= 65535) return [groups, 1, 1];
  const rows = Math.ceil(groups / 65535);
  return [Math.ceil(groups / rows), rows, 1];
}

/** Opens a device on `gpu` (Dawn's or a browser's). Import the operations first: their kernels' texts are read here. */
export async function openDevice(gpu: GPU, host: Host, options: DeviceOptions = {}): Promise<Device> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter)
    throw new Error(
      '[device] no WebGPU adapter answers. Run `npm run setup`, which installs a driver or says which one is missing',
    );
  const { maxStorageBuffersPerShaderStage } = adapter.limits;
  if (maxStorageBuffersPerShaderStage < STORAGE_BUFFERS)
    throw new Error(
      `[device] this adapter lets a kernel bind ${maxStorageBuffersPerShaderStage} storage buffers ` +
        `(maxStorageBuffersPerShaderStage); ${STORAGE_BUFFERS} are needed. Take another adapter`,
    );
  const without = new Set<string>(options.without ?? []);
  const info = adapter.info;
  const subgroups = adapter.features.has('subgroups') && !without.has('subgroups');
  const f16 = adapter.features.has('shader-f16') && !without.has('f16');
  const timestamps = adapter.features.has('timestamp-query');
  const immediateBytes = (adapter.limits as { maxImmediateSize?: number }).maxImmediateSize ?? 0;
  const immediates =
    immediateBytes >= MAX_IMMEDIATE_BYTES &&
    gpu.wgslLanguageFeatures.has('immediate_address_space') &&
    !without.has('immediates');
  const features: GPUFeatureName[] = [];
  const matrices = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;
  const subgroupMatrix = subgroups && f16 && adapter.features.has(matrices);
  if (subgroupMatrix) features.push(matrices);
  if (subgroups) features.push('subgroups');
  if (f16) features.push('shader-f16');
  if (timestamps) features.push('timestamp-query');
  // Every limit that kernels or memory can use is asked for at the adapter's own value; defaults are far below it.
  const limits: Record<string, number> = {};
  for (const name of [
    'maxBufferSize',
    'maxStorageBufferBindingSize',
    'maxStorageBuffersPerShaderStage',
    'maxComputeWorkgroupStorageSize',
    'maxComputeInvocationsPerWorkgroup',
    'maxComputeWorkgroupSizeX',
    'maxComputeWorkgroupSizeY',
    'maxComputeWorkgroupSizeZ',
  ] as const)
    limits[name] = adapter.limits[name];
  const { workgroupMemory = Infinity } = options;
  limits['maxComputeWorkgroupStorageSize'] = Math.min(adapter.limits.maxComputeWorkgroupStorageSize, workgroupMemory);
  if (immediates) limits['maxImmediateSize'] = MAX_IMMEDIATE_BYTES;
  await readSources((url) => host.readText(url));
  const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits });
  const description = [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' ');
  const profile: Profile = {
    description,
    software:
      info.isFallbackAdapter ||
      /llvmpipe|lavapipe|swiftshader/i.test(`${info.device} ${info.description} ${info.architecture}`),
    subgroupSize: subgroups && info.subgroupMinSize === info.subgroupMaxSize ? (info.subgroupMaxSize ?? 0) : 0,
    f16,
    subgroupMatrix: subgroupMatrix ? subgroupMatrixConfigs(info) : [],
    workgroupMemory: device.limits.maxComputeWorkgroupStorageSize,
    immediates,
    timestamps,
    tuning: options.tuning ?? (await host.tuning?.(description)) ?? {},
  };
  const openSibling = async (): Promise<GPUDevice> => {
    const again = await gpu.requestAdapter({ powerPreference: 'high-performance' }); // one adapter opens one device
    return again!.requestDevice({ requiredFeatures: features, requiredLimits: limits });
  };
  return new Device(device, profile, host, options, openSibling);
}
