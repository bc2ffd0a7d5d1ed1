#!/usr/bin/env node
'use strict';

const { loadDevice, setDeviceFlags } = require('./device-bundle.js');
const { start } = require('./start.js');

setDeviceFlags();
start('device', () => loadDevice().main);
