import type * as Vega from 'vega';
import { renderSvg } from './svg.ts';

/** One curve: its name and its points (step, value). */
export interface Curve {
  readonly name: string;
  readonly points: readonly (readonly [number, number])[];
}

/**
 * A line chart of curves over steps as a PNG file's bytes: every value faintly, and its running mean over a twentieth of the
 * steps. Values that are not finite are left out.
 */
export async function lineChart(title: string, curves: readonly Curve[]): Promise<Uint8Array> {
  // Loaded when a chart is drawn: together they take as long as opening the device.
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const values = curves.flatMap(({ name, points }) => {
    const finite = points.filter(([, value]) => Number.isFinite(value));
    const reach = Math.max(1, Math.round(finite.length / 40));
    return finite.map(([step, value], i) => {
      const around = finite.slice(Math.max(0, i - reach), i + reach + 1);
      return { curve: name, step, value, mean: around.reduce((total, [, v]) => total + v, 0) / around.length };
    });
  });
  const axes = {
    x: { field: 'step', type: 'quantitative' },
    color: { field: 'curve', type: 'nominal', title: null },
  } as const;
  const { spec } = compile({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title,
    width: 640,
    height: 320,
    background: 'white',
    data: { values },
    layer: [
      {
        mark: { type: 'line', opacity: 0.25, strokeWidth: 1 },
        encoding: { ...axes, y: { field: 'value', type: 'quantitative', title: 'loss' } },
      },
      { mark: { type: 'line', strokeWidth: 2 }, encoding: { ...axes, y: { field: 'mean', type: 'quantitative' } } },
    ],
  });
  return draw(vega, spec);
}

/** A mean of some samples with half the width of its interval; null: there is none. */
export interface Estimate {
  readonly name: string;
  /** What is estimated: each has a panel of its own. */
  readonly measure: string;
  readonly mean: number;
  readonly half: number | null;
}

/** Means as dots and their intervals as bars, names from top to bottom, measures side by side, as a PNG file's bytes. */
export async function intervalChart(title: string, estimates: readonly Estimate[]): Promise<Uint8Array> {
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const values = estimates.map(({ name, measure, mean, half }) => ({
    name,
    measure,
    mean,
    low: mean - (half ?? 0),
    high: mean + (half ?? 0),
  }));
  const y = { field: 'name', type: 'nominal', sort: null, title: null } as const;
  const { spec } = compile({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    title,
    background: 'white',
    data: { values },
    facet: {
      column: { field: 'measure', type: 'nominal', sort: [...new Set(values.map((one) => one.measure))], title: null },
    },
    spec: {
      width: 180,
      height: { step: 22 },
      layer: [
        {
          mark: 'rule',
          encoding: { y, x: { field: 'low', type: 'quantitative', title: null }, x2: { field: 'high' } },
        },
        {
          mark: { type: 'point', filled: true, size: 50 },
          encoding: { y, x: { field: 'mean', type: 'quantitative' } },
        },
      ],
    },
    resolve: { scale: { x: 'independent' } },
    config: { axis: { labelLimit: 300 } },
  });
  return draw(vega, spec);
}

async function draw(vega: typeof Vega, spec: Vega.Spec): Promise<Uint8Array> {
  const view = new vega.View(vega.parse(spec), { renderer: 'none' });
  const svg = await view.toSVG();
  view.finalize();
  return renderSvg(svg, 2);
}
