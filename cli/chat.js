#!/usr/bin/env node
import { runBuilt } from './shim.js';

await runBuilt('chat');
