import { describe, expect, it } from 'vitest';
import { describeKeys, loadConfig, parseConfig } from '../../cli/config.ts';

const base = `
task: dreambooth
name: test
steps: 10
model: assets/base
data: { folder: x, class: cat }
optimizer: { lr: 1.0e-4 }
`;
const parse = (...overrides: string[]) => parseConfig(base, 'config.yaml', overrides);

describe('configuration', () => {
  it('fills defaults and takes overrides', () => {
    const config = parse('optimizer.lr=3e-4', 'prior.weight=0', 'sample.prompts=[a dog, a cat]');
    expect(config).toMatchObject({
      optimizer: { lr: 3e-4, betas: [0.9, 0.999], decay: 0.01 },
      prior: { weight: 0, pictures: 16 },
      sample: { prompts: ['a dog', 'a cat'] },
      data: { token: 'sks' },
    });
  });

  it.each([
    [['optimizer.lrr=1'], '"optimizer.lrr=1": optimizer.lrr is not a known key; did you mean optimizer.lr?'],
    [['optimiser.lr=1'], '"optimiser.lr=1": optimiser is not a known key; did you mean optimizer?'],
    [['optimizer.betas=[1,2]'], '"optimizer.betas=[1,2]": optimizer.betas.0 must be less than 1, not 1'],
    [['prior.wieght=0'], 'did you mean prior.weight?'],
    [['optimizer.lr=-1'], '"optimizer.lr=-1": optimizer.lr must be more than 0, not -1'],
    [['optimizer.lr=fast'], '"optimizer.lr=fast": optimizer.lr must be a number, not "fast"'],
    [['steps=1.5'], '"steps=1.5": steps must be a whole number, not 1.5'],
    [['sample.sampler=dimm'], '"sample.sampler=dimm": sample.sampler must be one of ddim, ddpm'],
    [['task=dreamboth'], 'must be one of dreambooth, vae, diffusion, lm, not "dreamboth"'],
    [['steps'], '"steps" is not of the form key=value'],
    [['name.x=1'], 'name holds no keys'],
    [['__proto__.x=1'], 'no such key'],
    [['name=../x'], '"name=../x": name must be letters, digits, ".", "_" and "-" only, not "../x"'],
    [['optimizer.warmup=20'], '"optimizer.warmup=20": optimizer.warmup is 20, and the run has 10 steps (steps)'],
    [['train.text=yes'], 'train.text must be true or false, not "yes"'],
    [['sample.seeds=[]'], 'sample.seeds must be a list of at least 1, not []'],
    [['optimizer.betas=[0.9]'], 'optimizer.betas must be a list of at least 2, not [0.9]'],
    [['optimizer.betas=[0.9, 1]'], 'optimizer.betas.1 must be less than 1, not 1'],
    [['steps=.inf'], 'steps must be a number, not Infinity'],
    [['data.class=null'], 'data.class must be text, not null'],
  ])('refuses %j', (overrides, message) => {
    expect(() => parse(...overrides)).toThrow(message);
  });

  it('says what is wrong with the file itself', async () => {
    expect(() => parseConfig('a: [', 'config.yaml')).toThrow(/config\.yaml is not a YAML file: .*line 1/s);
    expect(() => parseConfig('- 1', 'config.yaml')).toThrow('must hold keys and values');
    expect(() => parseConfig('task: vae', 'config.yaml')).toThrow('config.yaml: name is missing');
    await expect(loadConfig('/nowhere.yaml')).rejects.toThrow('/nowhere.yaml: cannot be read (ENOENT)');
  });

  it('says which keys to set where the default run is made shorter than its warm-up', async () => {
    const short = loadConfig('assets/configs/dreambooth.yaml', ['steps=3']);
    await expect(short).rejects.toThrow(/optimizer\.warmup is 20, .*3 steps.*set optimizer\.warmup=0, or steps to 20/);
  });

  it('lists every key for --help', () => {
    expect(describeKeys('dreambooth')).toMatch(/prior\.weight = 1\s+λ/);
    expect(describeKeys('dreambooth')).toMatch(/optimizer\.text = 1/);
  });
});
