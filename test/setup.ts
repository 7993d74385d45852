import { afterAll } from 'vitest';
import { closeDevices } from './device.ts';

// Behind each file's own hooks. The software adapter maps memory for every bind group and gives none of it back while the
// device is open; Linux allows a process 65,530 maps, and past them it dies.
afterAll(closeDevices);
