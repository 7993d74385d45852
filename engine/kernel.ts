/** Kernels: WGSL sources found beside their operations, a tiny preprocessor, and compiled pipelines. */
import { MAX_FIELDS, MAX_IMMEDIATE_BYTES } from './stream.ts';
import type { Params } from './stream.ts';

/** A `.wgsl` file. Its text is read when the device opens, because dispatching is synchronous and `fetch` is not. */
export class KernelSource {
  readonly url: URL;
  readonly name: string;
  text: string | null = null;

  constructor(url: URL) {
    this.url = url;
    this.name = url.pathname.replace(/^.*\//, '').replace(/\.wgsl$/, '');
  }
}

const sources: KernelSource[] = [];

/** Registers a kernel file: `const source = wgsl(import.meta.url, './softmax.wgsl')` at the top of the operation's module. */
export function wgsl(base: string, path: string): KernelSource {
  const source = new KernelSource(new URL(path, base));
  sources.push(source);
  return source;
}

/** Reads every registered source that has not been read yet. */
export async function readSources(read: (url: URL) => Promise<string>): Promise<void> {
  await Promise.all(
    sources.filter((source) => source.text === null).map(async (source) => (source.text = await read(source.url))),
  );
}

/** The text of a source with those that it includes: `#include ./other.wgsl`, registered as every source is. */
function wholeText(source: KernelSource): string {
  if (source.text === null)
    throw new Error(`[kernel] ${source.url.pathname} is not read: import the operations before opening the device`);
  return source.text.replace(/^#include (\S+)$/gm, (_, path: string) => {
    const { href } = new URL(path, source.url);
    const included = sources.find(({ url }) => url.href === href);
    if (!included) throw new Error(`[kernel] ${source.name}.wgsl includes ${path}, which is not registered`);
    return wholeText(included);
  });
}

/** What a kernel's text is specialised by. `SUBGROUPS` and `F16` also enable the WGSL extension. */
export type Defines = Readonly<Record<string, string | number | boolean>>;

/**
 * `#if NAME`, `#if !NAME`, `#else`, `#endif` on lines of their own, and `$NAME` replaced by the define's text.
 * Throws on unbalanced directives and on a `$NAME` without a define.
 */
export function preprocess(name: string, text: string, defines: Defines): string {
  const out: string[] = [];
  const active: boolean[] = [];
  text.split('\n').forEach((line, i) => {
    const where = `${name}.wgsl:${i + 1}`;
    const directive = /^\s*#(if|else|endif)\b\s*(!?)\s*(\w*)/.exec(line);
    if (directive) {
      const [, kind, not, key] = directive;
      if (kind === 'if') active.push(Boolean(defines[key!]) !== (not === '!'));
      else if (active.length === 0) throw new Error(`[kernel] ${where}: #${kind} without #if`);
      else if (kind === 'else') active.push(!active.pop());
      else active.pop();
      out.push(''); // keeps line numbers, so that a compiler's message points into the file
    } else if (active.every(Boolean)) {
      out.push(
        line.replace(/\$(\w+)/g, (_, key: string) => {
          if (!(key in defines)) throw new Error(`[kernel] ${where}: $${key} is not defined`);
          return String(defines[key]);
        }),
      );
    } else out.push('');
  });
  if (active.length > 0) throw new Error(`[kernel] ${name}.wgsl: #if without #endif`);
  return out.join('\n');
}

type Field = { name: string; type: 'u32' | 'i32' | 'f32' };
type Binding = { name: string; access: 'read' | 'read_write' };

/** One specialised kernel: its pipeline, its parameters in order, its bind groups by buffers. */
export class Kernel {
  readonly source: KernelSource;
  readonly defines: Defines;
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly Binding[];
  /** Which of the bindings it writes to. */
  readonly writes: readonly number[];
  readonly fields: readonly Field[];
  readonly parameterBytes: number;
  /** How the parameters travel, if there are any: as immediates, or in a uniform buffer, bound behind the others. */
  readonly immediate: boolean;
  readonly uniform: boolean;
  readonly layout: GPUBindGroupLayout;
  readonly bindGroups = new Map<string, GPUBindGroup>();
  readonly #gpu: GPUDevice;
  readonly #pipelineLayout: GPUPipelineLayout;
  #pipeline: GPUComputePipeline | null = null;
  /** Called once, when the pipeline is compiled. */
  readonly #onCompile: () => void;

  constructor(
    gpu: GPUDevice,
    source: KernelSource,
    defines: Defines,
    options: { immediates: boolean; onCompile: () => void },
  ) {
    const text = wholeText(source);
    this.#gpu = gpu;
    this.source = source;
    this.defines = defines;
    this.#onCompile = options.onCompile;
    // Values of several lines are texts inserted into the kernel: no part of its name.
    const flags = Object.entries(defines).filter(([, value]) => value !== false && !String(value).includes('\n'));
    this.label =
      source.name + (flags.length ? `[${flags.map(([k, v]) => (v === true ? k : `${k}=${v}`)).join(' ')}]` : '');
    const body = preprocess(source.name, text, defines);
    this.bindings = parseBindings(this.label, body);
    this.writes = this.bindings.flatMap(({ access }, i) => (access === 'read_write' ? [i] : []));
    this.fields = parseParams(this.label, body);
    if (this.fields.length > MAX_FIELDS)
      throw new Error(`[kernel] ${this.label} has ${this.fields.length} parameters; ${MAX_FIELDS} are the most`);
    const bytes = this.fields.length * 4;
    this.parameterBytes = bytes;
    this.immediate = bytes > 0 && options.immediates && bytes <= MAX_IMMEDIATE_BYTES;
    this.uniform = bytes > 0 && !this.immediate;
    // On the first line of the text, which keeps its lines' numbers.
    let head = '';
    if (defines['F16']) head += 'enable f16; ';
    if (defines['SUBGROUPS']) head += 'enable subgroups; ';
    if (this.immediate) head += 'requires immediate_address_space; ';
    // In the uniform address space a struct of 4-byte scalars has the same layout as in any other.
    let declaration = '';
    if (this.immediate) declaration = 'var<immediate> params: Params;';
    if (this.uniform) declaration = `@group(0) @binding(${this.bindings.length}) var<uniform> params: Params;`;
    this.code = `${head}${body}\n${declaration}\n`;
    const entries: GPUBindGroupLayoutEntry[] = this.bindings.map((binding, i) => ({
      binding: i,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: binding.access === 'read' ? 'read-only-storage' : 'storage' },
    }));
    if (this.uniform)
      entries.push({
        binding: this.bindings.length,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: 'uniform', hasDynamicOffset: true, minBindingSize: bytes },
      });
    this.layout = gpu.createBindGroupLayout({ label: this.label, entries });
    this.#pipelineLayout = gpu.createPipelineLayout({
      bindGroupLayouts: [this.layout],
      ...(this.immediate ? { immediateSize: bytes } : {}),
    });
  }

  get compiled(): boolean {
    return this.#pipeline !== null;
  }

  get pipeline(): GPUComputePipeline {
    if (!this.#pipeline) {
      this.#pipeline = this.#gpu.createComputePipeline(this.#descriptor());
      this.#onCompile();
    }
    return this.#pipeline;
  }

  /** Compiles ahead, without blocking. */
  async compile(): Promise<void> {
    if (this.#pipeline) return;
    const pipeline = await this.#gpu.createComputePipelineAsync(this.#descriptor());
    if (!this.#pipeline) {
      this.#pipeline = pipeline;
      this.#onCompile();
    }
  }

  /** Writes `params` into `view` at `offset`, by field name. Throws on missing and unknown names. */
  pack(view: DataView, offset: number, params: Params): void {
    const { fields } = this;
    for (let i = 0; i < fields.length; i++) {
      const value = params[fields[i]!.name];
      if (value === undefined) throw new Error(`[kernel] ${this.label}: parameter "${fields[i]!.name}" is missing`);
      this.packField(view, offset, i, typeof value === 'number' ? value : value.value);
    }
    if (fields.length !== Object.keys(params).length) {
      const unknown = Object.keys(params).filter((name) => !fields.some((field) => field.name === name));
      throw new Error(`[kernel] ${this.label}: unknown parameter "${unknown.join('", "')}"`);
    }
  }

  /** Writes one field's value; `offset` is where all of them begin. */
  packField(view: DataView, offset: number, index: number, value: number): void {
    const { type } = this.fields[index]!;
    const at = offset + index * 4;
    if (type === 'f32') view.setFloat32(at, value, true);
    else if (type === 'u32') view.setUint32(at, value, true);
    else view.setInt32(at, value, true);
  }

  #descriptor(): GPUComputePipelineDescriptor {
    const module = this.#gpu.createShaderModule({ label: this.label, code: this.code });
    return { label: this.label, layout: this.#pipelineLayout, compute: { module, entryPoint: 'main' } };
  }
}

function parseBindings(label: string, code: string): Binding[] {
  const found: Binding[] = [];
  for (const match of code.matchAll(/@group\(0\)\s*@binding\((\d+)\)\s*var<storage\s*,\s*(read_write|read)>\s*(\w+)/g))
    found[Number(match[1])] = { access: match[2] as Binding['access'], name: match[3]! };
  for (let i = 0; i < found.length; i++)
    if (!found[i]) throw new Error(`[kernel] ${label}: binding ${i} is missing; bindings count from 0 without gaps`);
  return found;
}

function parseParams(label: string, code: string): Field[] {
  const struct = /struct\s+Params\s*\{([^}]*)\}/.exec(code);
  if (!struct) return [];
  return struct[1]!
    .replace(/\/\/.*$/gm, '')
    .split(',')
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line) => {
      const field = /^(\w+)\s*:\s*(u32|i32|f32)$/.exec(line);
      if (!field) throw new Error(`[kernel] ${label}: parameters are u32, i32 or f32, not "${line}"`);
      return { name: field[1]!, type: field[2] as Field['type'] };
    });
}
