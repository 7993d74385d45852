import fc from 'fast-check';
import type { StepCoefficients } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Row, Rows, Sample } from '../row.ts';
import type { guidedStep } from '../../../kernels/index.ts';

interface Attributes {
  scale: number;
  step: StepCoefficients;
}

/** DDIM's step from ᾱ = 0.3 to 0.6 with η = 1, the prediction of x₀ clipped to [−1, 1] or folded in. */
const clipped: StepCoefficients = {
  sample: 0, output: 0.37, noise: 0.53, clean: 0.77, cleanSample: 1.83, cleanOutput: -1.53, clip: 1, before: 0, past: [],
}; // prettier-ignore
const plain: StepCoefficients = {
  sample: 1.41, output: -0.55, noise: 0, clean: 0, cleanSample: 1.83, cleanOutput: -1.53, clip: 1, before: 0, past: [],
}; // prettier-ignore
/** Steps that reach back, as PNDM's and DPM-Solver++'s do. */
const far: StepCoefficients = { ...plain, before: -0.3, past: [0.59, -0.37, 0.11, -0.09] };
const near: StepCoefficients = { ...clipped, before: 0.4, past: [-0.8] };

function step([x, output, noise, last, ...outputs]: (NdArray | null)[], { scale, step }: Attributes): NdArray {
  const n = x!.data.length;
  return nd(x!.shape, (i) => {
    const guided = ({ data }: NdArray) => (scale === 1 ? data[i]! : data[i]! + scale * (data[n + i]! - data[i]!));
    const m = guided(output!);
    const clean = step.cleanSample * x!.data[i]! + step.cleanOutput * m;
    return (
      step.sample * x!.data[i]! +
      step.output * m +
      (noise ? step.noise * noise.data[i]! : 0) +
      step.clean * Math.min(Math.max(clean, -step.clip), step.clip) +
      (last ? step.before * last.data[i]! : 0) +
      outputs.reduce((sum, past, k) => sum + step.past[k]! * guided(past!), 0)
    );
  });
}

const row: Row<typeof guidedStep, Attributes> = {
  call: (operation, [x, output, noise, last, ...outputs], attributes) =>
    operation(x!, output!, noise ?? null, { ...attributes, history: last && { sample: last, outputs } }),
  reference: step,
  samples: [
    { inputs: [[2, 4, 3, 3], [4, 4, 3, 3], [2, 4, 3, 3]], attributes: { scale: 7.5, step: clipped } },
    { inputs: [[2, 4, 3, 3], [4, 4, 3, 3], null], attributes: { scale: 7.5, step: plain } },
    { inputs: [[3, 50], [3, 50], [3, 50]], attributes: { scale: 1, step: clipped } },
    { inputs: [[1], [2], null], attributes: { scale: 0, step: plain } },
    {
      inputs: [[2, 4, 3, 3], [4, 4, 3, 3], null, [2, 4, 3, 3], ...Array<number[]>(4).fill([4, 4, 3, 3])],
      attributes: { scale: 7.5, step: far },
    },
    { inputs: [[3, 50], [3, 50], [3, 50], [3, 50], [3, 50]], attributes: { scale: 1, step: near } },
  ], // prettier-ignore
  gradient: 'none',
  arbitrary: fc
    .tuple(
      fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 4 }),
      fc.float({ min: -2, max: 10, noNaN: true }),
    )
    .map(([shape, scale]): Sample<Attributes> => {
      const [n, ...rest] = shape as [number, ...number[]];
      return { inputs: [shape, [scale === 1 ? n : 2 * n, ...rest], shape], attributes: { scale, step: clipped } };
    }),
  bad: [
    [(operation, t) => operation(t([2, 3]), t([2, 3]), null, { scale: 2, step: plain }), /is \(4, 3\), not \(2, 3\)/],
    [
      (operation, t) => operation(t([2]), t([2], 'i32'), null, { scale: 1, step: plain }),
      /\[guidedStep\] all inputs are f32 or all f16, not f32 and i32/,
    ],
    [
      (operation, t) => operation(t([2]), t([2]), null, { scale: 1, step: clipped }),
      /adds noise, .* \(2,\), not missing/,
    ],
    [
      (operation, t) => operation(t([2]), t([2]), null, { scale: 1, step: far }),
      /\[guidedStep\] this step takes the last 4 outputs: got 0/,
    ],
    [
      (operation, t) => {
        const history = { sample: t([2]), outputs: [t([2]), t([2]), t([4]), t([2])] };
        return operation(t([2]), t([2]), null, { scale: 1, step: far, history });
      },
      /the last outputs must be \(2,\), not \(4,\)/,
    ],
    [
      (operation, t) => {
        const history = { sample: t([3]), outputs: Array.from({ length: 4 }, () => t([2])) };
        return operation(t([2]), t([2]), null, { scale: 1, step: far, history });
      },
      /the last sample must be \(2,\), not \(3,\)/,
    ],
    [
      (operation, t) => operation(t([2]), t([2]), null, { scale: 1, step: { ...far, past: [1, 2, 3, 4, 5] } }),
      /a step reaches back 4 outputs at most, not 5/,
    ],
    [
      (operation, t) => operation(t([2]), t([2]), null, { scale: 1, step: { ...far, past: [] } }),
      /takes the last sample takes an output of before as well/,
    ],
  ],
};

export const samplerRows: Rows<'guidedStep' | 'addNoise'> = {
  guidedStep: row,
  addNoise: {
    call: (operation, [x0, noise, a, b]) => operation(x0!, noise!, a!, b!),
    reference: ([x0, noise, a, b]) => {
      const inner = x0!.data.length / a!.data.length;
      return nd(x0!.shape, (i) => {
        const n = Math.floor(i / inner);
        return a!.data[n]! * x0!.data[i]! + b!.data[n]! * noise!.data[i]!;
      });
    },
    samples: [
      { inputs: [[3, 4, 2, 5], [3, 4, 2, 5], [3], [3]], attributes: {} },
      { inputs: [[2], [2], [2], [2]], attributes: {} },
      { inputs: [[1, 70], [1, 70], [1], [1]], attributes: {} },
    ], // prettier-ignore
    gradient: 'none',
    arbitrary: fc
      .array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 4 })
      .map((shape) => ({ inputs: [shape, shape, [shape[0]!], [shape[0]!]], attributes: {} })),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([2, 3]), t([3]), t([2])), /coefficients are \(2,\), not \(3,\)/],
      [(operation, t) => operation(t([2, 3]), t([3, 2]), t([2]), t([2])), /noise is \(3, 2\), the samples \(2, 3\)/],
    ],
  },
};
