/** What UNet and VAE are both made of. Fields carry the names of diffusers' weight files. */
import { reshape, scope } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { add, upsampleNearest } from '../kernels/index.ts';
import { Conv2d, GroupNorm, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';

export interface ResnetOptions {
  groups: number;
  eps: number;
  /** Width of the time embedding; 0 where there is none (VAE). */
  time?: number;
}

/** Residual block (He et al. 2016, pre-activation): two of norm, SiLU, 3×3 convolution; the time enters between them. */
export class ResnetBlock extends Module {
  norm1: GroupNorm;
  conv1: Conv2d;
  time_emb_proj: Linear | null;
  norm2: GroupNorm;
  conv2: Conv2d;
  conv_shortcut: Conv2d | null;

  constructor(device: Device, inputs: number, outputs: number, { groups, eps, time = 0 }: ResnetOptions) {
    super(device);
    this.norm1 = new GroupNorm(device, groups, inputs, eps);
    this.conv1 = new Conv2d(device, inputs, outputs, 3, { padding: 1 });
    this.time_emb_proj = time > 0 ? new Linear(device, time, outputs) : null;
    this.norm2 = new GroupNorm(device, groups, outputs, eps);
    this.conv2 = new Conv2d(device, outputs, outputs, 3, { padding: 1 });
    this.conv_shortcut = inputs === outputs ? null : new Conv2d(device, inputs, outputs, 1);
  }

  /** x (N, C, H, W), time: SiLU of the time embedding (N, E) → (N, C', H, W) */
  forward(x: Tensor, time?: Tensor): Tensor {
    const body = (x: Tensor, time?: Tensor) => {
      let h = this.conv1.forward(this.norm1.forward(x, { silu: true }));
      if (this.time_emb_proj) {
        const shift = this.time_emb_proj.forward(time!); // (N, C')
        h = add(h, reshape(shift, [...shift.shape, 1, 1]));
      }
      h = this.conv2.forward(this.norm2.forward(h, { silu: true }));
      return add(this.conv_shortcut ? this.conv_shortcut.forward(x) : x, h);
    };
    return time ? this.block(body, x, time) : this.block(body, x);
  }
}

/** Halves height and width by a 3×3 convolution of stride 2. */
export class Downsample extends Module {
  conv: Conv2d;

  /** `padding`: on every side (UNet), or right and bottom only (VAE). */
  constructor(device: Device, channels: number, padding: 'all' | 'after') {
    super(device);
    this.conv = new Conv2d(device, channels, channels, 3, {
      stride: 2,
      padding: padding === 'all' ? 1 : [0, 1, 0, 1],
    });
  }

  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Nearest-neighbour upsampling, then a 3×3 convolution (Odena et al. 2016: no checkerboards). */
export class Upsample extends Module {
  conv: Conv2d;

  constructor(device: Device, channels: number) {
    super(device);
    this.conv = new Conv2d(device, channels, channels, 3, { padding: 1 });
  }

  /** x (N, C, H, W) → (N, C, H', W'); twice the size by default. */
  forward(x: Tensor, size: readonly [number, number] = [2 * x.shape[2]!, 2 * x.shape[3]!]): Tensor {
    return scope(this.device, () => this.conv.forward(upsampleNearest(x, size)));
  }
}
