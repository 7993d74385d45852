import { isStorageFormat } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { cast, conv2d, embedding, groupNorm, layerNorm, linear, rmsNorm } from '../kernels/index.ts';
import { Module } from './module.ts';

/**
 * A parameter in the dtype of what it meets: f16 activations take f32 weights rounded, and the gradient is the f32
 * weights' (mixed precision, Micikevicius et al., 2018).
 */
export const like = (parameter: Tensor, x: Tensor): Tensor =>
  parameter.dtype === x.dtype || isStorageFormat(parameter.dtype) ? parameter : cast(parameter, x.dtype);

/** The same for a product's weight: that in f16 is read as it is beside f32. */
export const factor = (weight: Tensor, x: Tensor): Tensor =>
  weight.dtype === 'f16' && x.dtype === 'f32' ? weight : like(weight, x);

/** y = x Wᵀ + b; weight (out, in), x (…, in). */
export class Linear extends Module {
  weight: Tensor;
  bias: Tensor | null;

  constructor(device: Device, inputs: number, outputs: number, { bias = true } = {}) {
    super(device);
    const bound = 1 / Math.sqrt(inputs); // PyTorch's default
    this.weight = this.parameter('weight', [outputs, inputs], { uniform: bound });
    this.bias = bias ? this.parameter('bias', [outputs], { uniform: bound }) : null;
  }

  forward(x: Tensor): Tensor {
    return linear(x, factor(this.weight, x), this.bias ? like(this.bias, x) : null);
  }
}

export interface ConvOptions {
  stride?: number;
  /** The same on every side, or [top, bottom, left, right]. */
  padding?: number | readonly [number, number, number, number];
}

/** Convolution over (N, C, H, W); weight (out, in, k, k). */
export class Conv2d extends Module {
  weight: Tensor;
  bias: Tensor;
  readonly #options: ConvOptions;

  constructor(device: Device, inputs: number, outputs: number, kernel: number, options: ConvOptions = {}) {
    super(device);
    const bound = 1 / Math.sqrt(inputs * kernel * kernel);
    this.weight = this.parameter('weight', [outputs, inputs, kernel, kernel], { uniform: bound });
    this.bias = this.parameter('bias', [outputs], { uniform: bound });
    this.#options = options;
  }

  forward(x: Tensor): Tensor {
    return conv2d(x, like(this.weight, x), like(this.bias, x), this.#options);
  }
}

/** Group normalisation of (N, C, …), with SiLU fused where asked for (Wu & He, 2018). */
export class GroupNorm extends Module {
  weight: Tensor;
  bias: Tensor;
  readonly #groups: number;
  readonly #eps: number;

  constructor(device: Device, groups: number, channels: number, eps: number) {
    super(device);
    this.weight = this.parameter('weight', [channels], { constant: 1 });
    this.bias = this.parameter('bias', [channels], { constant: 0 });
    this.#groups = groups;
    this.#eps = eps;
  }

  forward(x: Tensor, { silu = false } = {}): Tensor {
    return groupNorm(x, like(this.weight, x), like(this.bias, x), this.#groups, { eps: this.#eps, silu });
  }
}

/** Layer normalisation over the last dimension (Ba et al., 2016). */
export class LayerNorm extends Module {
  weight: Tensor;
  bias: Tensor;
  readonly #eps: number;

  constructor(device: Device, width: number, eps = 1e-5) {
    super(device);
    this.weight = this.parameter('weight', [width], { constant: 1 });
    this.bias = this.parameter('bias', [width], { constant: 0 });
    this.#eps = eps;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, like(this.weight, x), like(this.bias, x), this.#eps);
  }
}

/** Root mean square normalisation over the last dimension (Zhang & Sennrich, 2019); see `rmsNorm` for `offset`. */
export class RmsNorm extends Module {
  weight: Tensor;
  readonly #options: { eps: number; offset: number };

  constructor(device: Device, width: number, { eps = 1e-6, offset = 0 } = {}) {
    super(device);
    this.weight = this.parameter('weight', [width], { constant: 1 - offset });
    this.#options = { eps, offset };
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, like(this.weight, x), this.#options);
  }
}

/** Rows of a table by index; weight (rows, width). */
export class Embedding extends Module {
  weight: Tensor;

  constructor(device: Device, rows: number, width: number) {
    super(device);
    this.weight = this.parameter('weight', [rows, width], { normal: 0.02 });
  }

  /** ids (…) i32 → (…, width). */
  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids);
  }
}
