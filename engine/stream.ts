import type { Parameter } from './capture.ts';
import type { Kernel } from './kernel.ts';
import type { Block } from './memory.ts';

/** Dispatches recorded before the stream submits by itself, so that the adapter works while the host records on. */
const BATCH = 64;
/** Bind groups kept. Each costs the driver memory (on lavapipe a mapping, of which a process may have 65,530). */
const MAX_BIND_GROUPS = 8192;
const RING_BYTES = 1 << 20;
/** A dispatch's share of the ring: a multiple of the guaranteed minUniformBufferOffsetAlignment. */
const RING_STEP = 512;
/** Bytes of parameters that travel as immediates; more go through the ring. An adapter that allows fewer counts as without. */
export const MAX_IMMEDIATE_BYTES = 64;
/** Parameters of a kernel at most. */
export const MAX_FIELDS = RING_STEP / 4;

/**
 * Bind groups let go in this process since garbage was last collected. WebGPU cannot destroy them, and to JavaScript's
 * collector they are small: left to itself it lets tens of thousands pile up, until the driver fails.
 */
let abandoned = 0;

/** A recorded command, as capture keeps it. */
export type Command = DispatchCommand | CopyCommand | ClearCommand;

interface DispatchCommand {
  readonly kernel: Kernel;
  readonly windows: readonly Window[];
  readonly group: GPUBindGroup;
  /** Parameters as packed; those that are variables are written again. */
  readonly data: DataView;
  readonly variables: readonly { readonly index: number; readonly variable: { readonly value: number } }[];
  readonly groups: readonly [number, number, number];
}

interface CopyCommand {
  readonly source: Window;
  readonly target: Window;
  readonly bytes: number;
}

interface ClearCommand {
  readonly clear: Window;
}

/** Parameters of a dispatch, by name. */
export type Params = Readonly<Record<string, Parameter>>;

/** A buffer's window as a kernel sees it. */
export interface Window {
  block: Block;
  offset: number; // bytes, a multiple of 256
  bytes: number;
}

/** Before a block is written: computes what is still to be computed from its present content. */
function settleReaders({ readers }: Block): void {
  if (readers.size > 0) for (const storage of [...readers]) void storage.block;
}

/**
 * The command stream: operations record into one open compute pass; it is submitted when a copy, a read or enough work
 * calls for it. The queue keeps the order, so a buffer may be reused as soon as its last command is recorded.
 */
export class Stream {
  readonly #gpu: GPUDevice;
  readonly #collect: () => void;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #pending = 0;
  /** Identifies the commands recorded but not submitted; see `Block.batch`. */
  #batch = 0;
  #pipeline: GPUComputePipeline | null = null;
  readonly #scratch = new DataView(new ArrayBuffer(MAX_IMMEDIATE_BYTES));
  /** Where in the scratch or the ring the parameters of the dispatch at hand lie. */
  #at = 0;
  #recording: { readonly commands: Command[]; readonly written: Set<Block> } | null = null;
  #ring: { buffer: GPUBuffer; mirror: Uint8Array<ArrayBuffer>; view: DataView; used: number } | null = null;
  dispatches = 0;
  submits = 0;
  /** Bind groups created so far: constant in a steady training step. */
  bindGroups = 0;
  /** The kernels of the bind groups that are cached now. */
  #cached: Kernel[] = [];

  /** `collect` asks for a collection of garbage. */
  constructor(gpu: GPUDevice, collect: () => void) {
    this.#gpu = gpu;
    this.#collect = collect;
  }

  /** Records one dispatch. */
  dispatch(
    kernel: Kernel,
    windows: readonly Window[],
    params: Params,
    groups: readonly [number, number, number],
  ): void {
    for (const i of kernel.writes) this.#beforeWrite(windows[i]!.block, kernel.label);
    const view = this.#parameters(kernel);
    kernel.pack(view, this.#at, params);
    const group = this.#bindGroup(kernel, windows);
    this.#encode(kernel, group, groups);
    for (const window of windows) window.block.batch = this.#batch;
    if (this.#recording) {
      const data = new DataView(view.buffer.slice(this.#at, this.#at + kernel.parameterBytes) as ArrayBuffer);
      const variables = kernel.fields.flatMap(({ name }, index) => {
        const value = params[name];
        return typeof value === 'object' ? [{ index, variable: value }] : [];
      });
      this.#recording.commands.push({ kernel, windows, group, data, variables, groups });
    }
    if (++this.#pending >= BATCH) this.flush();
  }

  /** Computes what needs the block's present content, and sees that a replay does the same as what is captured. */
  #beforeWrite(block: Block, writer: string): void {
    settleReaders(block);
    if (!this.#recording) return;
    if (block.constant)
      throw new Error(`[capture] ${writer} writes to a tensor of host values, which a replay would not restore`);
    this.#recording.written.add(block);
  }

  /** Where the parameters of the next dispatch are to be written: the returned view, at `#at`. */
  #parameters(kernel: Kernel): DataView {
    if (!kernel.uniform) {
      this.#at = 0;
      return this.#scratch;
    }
    this.#at = this.#reserve(); // may submit, so before the pass is taken
    return this.#ring!.view;
  }

  #encode(kernel: Kernel, group: GPUBindGroup, groups: readonly [number, number, number]): void {
    const pass = this.#openPass();
    const { pipeline } = kernel;
    if (this.#pipeline !== pipeline) {
      this.#pipeline = pipeline;
      pass.setPipeline(pipeline);
    }
    if (kernel.uniform) pass.setBindGroup(0, group, [this.#at]);
    else pass.setBindGroup(0, group);
    if (kernel.immediate) pass.setImmediates!(0, this.#scratch.buffer, 0, kernel.parameterBytes);
    pass.dispatchWorkgroups(groups[0], groups[1], groups[2]);
    this.dispatches++;
  }

  /** Begins to keep what is recorded; see `capture`. */
  record(): void {
    if (this.#recording) throw new Error('[capture] a step is being captured already; captures do not nest');
    this.#recording = { commands: [], written: new Set() };
  }

  /** What was recorded since `record`. */
  recorded(): Command[] {
    const commands = this.#recording?.commands ?? [];
    this.#recording = null;
    return commands;
  }

  /** Records captured commands again. */
  replay(commands: readonly Command[]): void {
    for (const command of commands) {
      if ('kernel' in command) {
        const { kernel, windows, group, data, variables, groups } = command;
        for (const i of kernel.writes) settleReaders(windows[i]!.block);
        const view = this.#parameters(kernel);
        new Uint8Array(view.buffer, this.#at).set(new Uint8Array(data.buffer));
        for (const { index, variable } of variables) kernel.packField(view, this.#at, index, variable.value);
        this.#encode(kernel, group, groups);
        for (const window of windows) window.block.batch = this.#batch;
        if (++this.#pending >= BATCH) this.flush();
      } else if ('clear' in command) this.clear(command.clear);
      else this.copy(command.source, command.target, command.bytes);
    }
  }

  copy(source: Window, target: Window, bytes: number): void {
    this.#beforeWrite(target.block, 'a copy');
    this.#openEncoder().copyBufferToBuffer(source.block.raw, source.offset, target.block.raw, target.offset, bytes);
    source.block.batch = target.block.batch = this.#batch;
    this.#recording?.commands.push({ source, target, bytes });
    this.#pending++;
  }

  /** Fills a window with zeros. */
  clear(window: Window): void {
    this.#beforeWrite(window.block, 'a clear');
    this.#openEncoder().clearBuffer(window.block.raw, window.offset, window.bytes);
    window.block.batch = this.#batch;
    this.#recording?.commands.push({ clear: window });
    this.#pending++;
  }

  /** Writes host data at once; submits first where recorded commands still use the buffer. */
  write(window: Window, data: ArrayBufferView<ArrayBuffer>): void {
    settleReaders(window.block);
    if (this.#recording) {
      if (!window.block.reservation)
        throw new Error(
          '[capture] the body writes host values into a tensor made before it: write them before each run',
        );
      if (this.#recording.written.has(window.block))
        throw new Error(
          '[capture] the body writes host values into a tensor that has others: make a new one by tensor()',
        );
      this.#recording.written.add(window.block);
      window.block.constant = true;
    }
    this.beforeHostWrite(window.block);
    this.#gpu.queue.writeBuffer(window.block.raw, window.offset, data.buffer, data.byteOffset, data.byteLength);
  }

  beforeHostWrite(block: Block): void {
    if (block.batch === this.#batch) this.flush();
  }

  /** Copies a window into a buffer that the host can map, and submits. */
  stage(window: Window, staging: GPUBuffer, bytes: number): void {
    if (this.#recording) throw new Error('[capture] the body reads values back; read them after the capture');
    this.#openEncoder().copyBufferToBuffer(window.block.raw, window.offset, staging, 0, bytes);
    this.#pending++;
    this.flush();
  }

  /** Empties the caches of bind groups: their buffers are about to go, or there are too many. */
  forgetBindGroups(): void {
    abandoned += this.#cached.length;
    for (const kernel of this.#cached) kernel.bindGroups.clear();
    this.#cached = [];
    if (abandoned < MAX_BIND_GROUPS) return;
    abandoned = 0;
    this.#collect();
  }

  get cachedBindGroups(): number {
    return this.#cached.length;
  }

  /** Submits what is recorded. */
  flush(): void {
    if (!this.#encoder) return;
    this.#pass?.end();
    if (this.#ring && this.#ring.used > 0) {
      this.#gpu.queue.writeBuffer(this.#ring.buffer, 0, this.#ring.mirror, 0, this.#ring.used);
      this.#ring.used = 0;
    }
    this.#gpu.queue.submit([this.#encoder.finish()]);
    this.submits++;
    this.#encoder = this.#pass = this.#pipeline = null;
    this.#pending = 0;
    this.#batch++;
  }

  #openEncoder(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = this.#pipeline = null;
    return (this.#encoder ??= this.#gpu.createCommandEncoder());
  }

  #openPass(): GPUComputePassEncoder {
    this.#encoder ??= this.#gpu.createCommandEncoder();
    return (this.#pass ??= this.#encoder.beginComputePass());
  }

  #reserve(): number {
    if (!this.#ring) {
      const buffer = this.#gpu.createBuffer({
        size: RING_BYTES,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      const mirror = new Uint8Array(RING_BYTES);
      this.#ring = { buffer, mirror, view: new DataView(mirror.buffer), used: 0 };
    }
    if (this.#ring.used === RING_BYTES) this.flush();
    const offset = this.#ring.used;
    this.#ring.used += RING_STEP;
    return offset;
  }

  #bindGroup(kernel: Kernel, windows: readonly Window[]): GPUBindGroup {
    let key = '';
    for (const window of windows) key += `${window.block.id}:${window.offset}:${window.bytes} `;
    let group = kernel.bindGroups.get(key);
    if (!group) {
      if (windows.length !== kernel.bindings.length)
        throw new Error(`[kernel] ${kernel.label} binds ${kernel.bindings.length} buffers, got ${windows.length}`);
      const entries: GPUBindGroupEntry[] = windows.map((window, binding) => ({
        binding,
        resource: { buffer: window.block.raw, offset: window.offset, size: window.bytes },
      }));
      if (kernel.uniform)
        entries.push({
          binding: windows.length,
          resource: { buffer: this.#ring!.buffer, size: kernel.parameterBytes },
        });
      group = this.#gpu.createBindGroup({ label: kernel.label, layout: kernel.layout, entries });
      this.bindGroups++;
      if (this.#cached.length >= MAX_BIND_GROUPS) this.forgetBindGroups();
      this.#cached.push(kernel);
      kernel.bindGroups.set(key, group);
    }
    return group;
  }
}
