/** Runs recordings of diffusers and transformers (a folder with `manifest.json`) against this implementation. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../../engine/index.ts';
import { openSafetensors, reason } from '../../nn/files.ts';
import type { Safetensors } from '../../nn/safetensors.ts';
import { verifyDreambooth } from './dreambooth.ts';
import { verifyClipText, verifyUNet, verifyVae } from './models.ts';
import { verifyAttention, verifyLayers } from './operations.ts';
import { manifestSchema, Report } from './report.ts';
import type { NotRun, Recording, Row } from './report.ts';
import { verifyPipeline, verifySchedulers } from './sampling.ts';
import { verifyTransformer } from './transformer.ts';

/** What a kind's check works on. */
export interface Subject {
  readonly device: Device;
  /** The folder of the manifest, and that of the case. */
  readonly root: string;
  readonly folder: string;
  readonly recording: Recording;
  readonly inputs: Safetensors;
  readonly outputs: Safetensors;
}

type Check = (subject: Subject, report: Report) => Promise<void>;

const KINDS: Record<string, Check> = {
  unet: verifyUNet,
  vae: verifyVae,
  clip_text: verifyClipText,
  schedulers: verifySchedulers,
  pipeline: verifyPipeline,
  dreambooth: verifyDreambooth,
  attention: verifyAttention,
  layers: verifyLayers,
  llm: verifyTransformer,
};

/** Reads and checks a folder's `manifest.json`. Throws, saying what is wrong with it. */
export async function readManifest(root: string): Promise<Recording[]> {
  const file = path.join(root, 'manifest.json');
  const fail = (what: string, cause?: unknown): never => {
    throw new Error(`[verify] ${file}: ${what}`, { cause });
  };
  const text = await readFile(file, 'utf8').catch((error: unknown) => fail(reason(error), error));
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return fail(`it is not JSON: ${(error as Error).message}`, error);
  }
  const result = manifestSchema.safeParse(json);
  if (!result.success) {
    const { path: at, message } = result.error.issues[0]!;
    return fail(`${at.join('.') || 'it'}: ${message}`);
  }
  return result.data.cases;
}

/** Runs one case. An error in it (a missing file, a damaged one, a model that does not load) is a failed row. */
export async function verifyCase(
  device: Device,
  root: string,
  recording: Recording,
  onRow?: (row: Row) => void,
): Promise<{ rows: readonly Row[]; notRun: readonly NotRun[] }> {
  const report = new Report(recording, onRow);
  const check = Object.hasOwn(KINDS, recording.kind) ? KINDS[recording.kind] : undefined;
  if (!check) {
    report.skip('all', `the kind ${recording.kind} is not known`);
    return report;
  }
  const folder = path.join(root, recording.dir);
  const opened: Safetensors[] = [];
  try {
    for (const file of ['inputs', 'outputs'])
      opened.push(await openSafetensors(path.join(folder, `${file}.safetensors`)));
    const [inputs, outputs] = opened as [Safetensors, Safetensors];
    await check({ device, root, folder, recording, inputs, outputs }, report);
    if (report.rows.length === 0 && report.notRun.length === 0)
      report.fail('all', 'the recording holds nothing to check');
  } catch (error) {
    report.fail('all', (error as Error).message);
  } finally {
    for (const file of opened) await file.close();
  }
  return report;
}
