import { jest } from '@jest/globals';

// Real registries, real processes, two shared cores.
jest.setTimeout(300_000);
