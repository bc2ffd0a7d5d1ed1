/* global document, window, location, ResizeObserver */
// The page that `delta-server explain --html` writes: a map of a delta. Names come from untrusted images: they are only
// ever set as text.
(() => {
  'use strict';

  const { account, file, kinds, labels } = JSON.parse(document.getElementById('account').textContent);
  const mapElement = document.getElementById('map');
  const mostTiles = 60;
  const mostRows = 100;

  // ---- The tree: delta, layers, directories, files, kinds ----

  const sumOf = (parts) => kinds.reduce((sum, kind) => sum + (parts[kind] ?? 0), 0);
  const addTo = (parts, more) => { for (const kind of kinds) if (more[kind]) parts[kind] = (parts[kind] ?? 0) + more[kind]; };

  const kindNodes = (parts) => kinds.filter((kind) => parts[kind] > 0).map((kind) => ({ name: labels[kind], kind, parts: { [kind]: parts[kind] }, children: [] }));
  const fileNode = (name, entry) => ({ name, entry, parts: entry.parts, children: kindNodes(entry.parts) });

  const childrenOf = (directory) => [
    ...[...directory.directories].map(([name, inner]) => directoryNode(name, inner)), ...directory.entries.map(([name, entry]) => fileNode(name, entry)),
  ];

  /** A directory that holds only one directory is shown with it. */
  function directoryNode(name, directory) {
    const children = childrenOf(directory);
    const [only] = children;
    if (children.length === 1 && only.entry === undefined) return { ...only, name: `${name}/${only.name}` };
    return groupNode(`${name}/`, children);
  }

  function groupNode(name, children, more = {}) {
    const parts = {};
    for (const child of children) addTo(parts, child.parts);
    return { name, parts, children, ...more };
  }

  function layerNode(layer) {
    const root = { directories: new Map(), entries: [] };
    for (const entry of layer.files ?? []) {
      const path = entry.path.split('/').filter((part) => part !== '' && part !== '.');
      const name = path.pop() ?? '/';
      let at = root;
      if (entry.type === 'directory') path.push(name);
      for (const part of path) {
        if (!at.directories.has(part)) at.directories.set(part, { directories: new Map(), entries: [] });
        at = at.directories.get(part);
      }
      at.entries.push([entry.type === 'directory' ? '(the directory itself)' : name, entry]);
    }
    return groupNode(`layer ${layer.layer}`, [...childrenOf(root), ...kindNodes(layer.own)], { layer });
  }

  function deltaNode() {
    const children = account.layers.filter((layer) => layer.deltaBytes > 0 || layer.files?.length > 0).map(layerNode);
    children.push(...kindNodes(account.own));
    if (account.unknownBytes > 0) children.push({ name: 'not told apart without the basis', kind: 'unknown', parts: { unknown: account.unknownBytes }, children: [] });
    return groupNode('delta', children);
  }

  /** Sorts children, largest first, and gives every node its bytes. */
  function finish(node) {
    node.bytes = node.kind === 'unknown' ? node.parts.unknown : sumOf(node.parts);
    for (const child of node.children) finish(child);
    node.children.sort((a, b) => b.bytes - a.bytes);
    if (node.children.some((child) => child.kind === 'unknown')) node.bytes = node.children.reduce((sum, child) => sum + child.bytes, 0);
    return node;
  }

  /** At most `limit` children; the smaller ones become one. */
  function grouped(node, limit) {
    if (node.children.length <= limit) return node.children;
    node.rest ??= new Map();
    if (!node.rest.has(limit)) {
      const smaller = node.children.slice(limit - 1);
      const rest = groupNode(`${exact(smaller.length)} smaller`, smaller);
      rest.bytes = smaller.reduce((sum, child) => sum + child.bytes, 0);
      node.rest.set(limit, rest);
    }
    return [...node.children.slice(0, limit - 1), node.rest.get(limit)];
  }

  // ---- Words ----

  const exact = (count) => count.toLocaleString('en-US', { maximumFractionDigits: 0 });
  const bytesText = (bytes) => (bytes >= 100 || Number.isInteger(bytes) ? exact(bytes) : bytes.toFixed(1));
  const shareText = (bytes, of) => `${((bytes / Math.max(1, of)) * 100).toFixed(1)}%`;

  function element(name, properties = {}, children = []) {
    const made = document.createElement(name);
    const { style, ...rest } = properties;
    Object.assign(made, rest);
    for (const [key, value] of Object.entries(style ?? {})) made.style.setProperty(key, value);
    made.append(...children);
    return made;
  }

  const colour = (kind) => `var(--${kind})`;
  const mainKind = (node) => node.kind ?? kinds.reduce((best, kind) => ((node.parts[kind] ?? 0) > (node.parts[best] ?? 0) ? kind : best), kinds[0]);

  // ---- The map ----

  /** Squarified treemap: rectangles for `nodes` (descending) in the box, as near to squares as may be. */
  function squarify(nodes, box) {
    const placed = [];
    let { x, y, width, height } = box;
    let left = nodes.filter((node) => node.bytes > 0);
    let total = left.reduce((sum, node) => sum + node.bytes, 0);
    while (left.length > 0 && width > 0 && height > 0) {
      const short = Math.min(width, height);
      const scale = (width * height) / total;
      const worst = (sum, large, small) => Math.max((short * short * large * scale) / (sum * sum * scale * scale), (sum * sum * scale * scale) / (short * short * small * scale));
      let count = 1;
      let sum = left[0].bytes;
      while (count < left.length && worst(sum + left[count].bytes, left[0].bytes, left[count].bytes) <= worst(sum, left[0].bytes, left[count - 1].bytes)) sum += left[count++].bytes;
      const thick = (sum * scale) / short;
      let along = 0;
      for (const node of left.slice(0, count)) {
        const long = (node.bytes * scale) / thick;
        placed.push(width >= height ? { node, x, y: y + along, width: thick, height: long } : { node, x: x + along, y, width: long, height: thick });
        along += long;
      }
      if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
      total -= sum;
      left = left.slice(count);
    }
    return placed;
  }

  const boxStyle = ({ x, y, width, height }) => ({ left: `${x}px`, top: `${y}px`, width: `${Math.max(1, width)}px`, height: `${Math.max(1, height)}px` });

  /** What lies within a tile, down to what can still be seen: only to look at. */
  function innerTiles(node, box) {
    if (node.children.length === 0 || box.width < 8 || box.height < 8) return [];
    return squarify(grouped(node, mostTiles), box).filter(({ width, height }) => width > 2 && height > 2).map((place) => {
      const inner = element('u', { ariaHidden: 'true', style: { ...boxStyle(place), background: colour(mainKind(place.node)) } });
      const head = place.width > 70 && place.height > 36 && place.node.kind === undefined ? 18 : 0;
      if (head > 0) inner.append(element('small', { textContent: place.node.name }));
      inner.append(...innerTiles(place.node, { x: 0, y: head, width: place.width - 1, height: place.height - head - 1 }));
      return inner;
    });
  }

  function tileFor(place, node) {
    const child = place.node;
    const label = `${child.name}: ${bytesText(child.bytes)} bytes, ${shareText(child.bytes, node.bytes)} of ${node.name}`;
    const tile = element('button', { className: 'tile', type: 'button', title: label, ariaLabel: label, disabled: child.children.length === 0, style: boxStyle(place) });
    const wide = place.width > 44 && place.height > 22;
    const head = wide ? (place.height > 60 ? 42 : 22) : 0;
    tile.style.setProperty('background', colour(mainKind(child)));
    if (wide) tile.append(element('b', { textContent: child.name }));
    if (head > 22) tile.append(element('small', { textContent: `${bytesText(child.bytes)} B · ${shareText(child.bytes, node.bytes)}` }));
    tile.append(...innerTiles(child, { x: 0, y: head, width: place.width - 2, height: place.height - head - 2 }));
    tile.addEventListener('click', () => open([...here.path, child]));
    return tile;
  }

  function drawMap(node) {
    const box = { x: 0, y: 0, width: mapElement.clientWidth, height: mapElement.clientHeight };
    mapElement.replaceChildren(...squarify(grouped(node, mostTiles), box).map((place) => tileFor(place, node)));
  }

  // ---- What stands around it ----

  function drawCrumbs(path) {
    const parts = path.map((node, at) => (at === path.length - 1
      ? element('span', { textContent: node.name, ariaCurrent: 'page' })
      : crumb(node, () => open(path.slice(0, at + 1)))));
    document.getElementById('crumbs').replaceChildren(...parts.flatMap((part, at) => (at === 0 ? [part] : [element('i', { textContent: '›', ariaHidden: 'true' }), part])));
  }

  function crumb(node, onClick) {
    const made = element('button', { type: 'button', textContent: node.name });
    made.addEventListener('click', onClick);
    return made;
  }

  function drawLegend(node) {
    const all = [...kinds, 'unknown'].map((kind) => [kind, kind === 'unknown' ? unknownIn(node) : node.parts[kind] ?? 0]).filter(([, bytes]) => bytes > 0);
    all.sort((a, b) => b[1] - a[1]);
    document.getElementById('legend').replaceChildren(...all.map(([kind, bytes]) => element('li', {}, [
      element('i', { style: { background: colour(kind) } }), `${labels[kind] ?? 'not told apart'}: ${bytesText(bytes)} (${shareText(bytes, node.bytes)})`,
    ])));
  }

  const unknownIn = (node) => (node === top ? account.unknownBytes : node.parts.unknown ?? 0);

  function drawFacts(node) {
    const facts = [];
    const { entry, layer } = node;
    if (entry !== undefined) {
      facts.push(['path', entry.path], ['size', `${exact(entry.sizeBytes)} bytes`], ['costs', `${bytesText(entry.deltaBytes)} bytes`], ['why', entry.why]);
      for (const source of entry.sources) facts.push([entry.how === 'copy' ? 'copied from' : 'compared with', `${source.path} (layer ${source.layer} of ${source.image === 'basis' ? 'the basis' : 'this image'})`]);
    }
    if (layer !== undefined) facts.push(['diffID', layer.diffId], ['tar', layer.tarBytes === null ? 'kept' : `${exact(layer.tarBytes)} bytes, ${exact(layer.files?.length ?? 0)} entries`]);
    document.getElementById('facts').replaceChildren(...facts.flatMap(([term, text]) => [element('dt', { textContent: term }), element('dd', { textContent: text })]));
  }

  function bar(node, widest) {
    const parts = kinds.filter((kind) => node.parts[kind] > 0);
    return element('div', { className: 'bar', ariaHidden: 'true' }, parts.map((kind) => element('u', { style: { background: colour(kind), width: `${(node.parts[kind] / Math.max(1, widest)) * 100}%` } })));
  }

  function rowFor(node, child, widest) {
    const name = child.children.length === 0 ? element('span', { textContent: child.name }) : crumb(child, () => open([...here.path, child]));
    const content = child.kind === undefined ? [name] : [element('i', { style: { background: colour(child.kind) } }), name];
    return element('tr', {}, [
      element('td', { className: 'name' }, content),
      element('td', { className: 'number', textContent: bytesText(child.bytes) }),
      element('td', { className: 'number', textContent: shareText(child.bytes, node.bytes) }),
      element('td', {}, [bar(child, widest)]),
      element('td', { className: 'number', textContent: child.entry === undefined ? '' : exact(child.entry.sizeBytes) }),
      element('td', { className: 'why', textContent: whyOf(child) }),
    ]);
  }

  function whyOf({ entry }) {
    if (entry === undefined) return '';
    const from = entry.sources.map((source) => source.path).filter((path) => path !== entry.path);
    return from.length === 0 ? entry.why : `${entry.why}: ${from.join(', ')}`;
  }

  function drawTable(node) {
    const children = grouped(node, mostRows);
    const widest = children.reduce((most, child) => Math.max(most, child.bytes), 0);
    document.getElementById('rows').replaceChildren(...children.map((child) => rowFor(node, child, widest)));
    document.getElementById('list').hidden = children.length === 0;
  }

  // ---- Where we are; the address keeps it, so that the browser's own buttons work ----

  const top = finish(deltaNode());
  let here = { path: [top] };
  const known = new Map();

  /** The address of a path: places among children; a group of smaller ones has the number of the list that made it. */
  function addressOf(path) {
    const steps = path.slice(1).map((node, at) => {
      const parent = path[at];
      const place = parent.children.indexOf(node);
      if (place >= 0) return String(place);
      return `s${[...(parent.rest ?? [])].find(([, rest]) => rest === node)?.[0] ?? mostRows}`;
    });
    return `#${steps.join('/')}`;
  }

  function pathOf(address) {
    const path = [top];
    for (const step of address.replace(/^#/, '').split('/').filter((text) => text !== '')) {
      const node = path.at(-1);
      const next = step.startsWith('s') ? grouped(node, Number(step.slice(1)) || mostRows).at(-1) : node.children[Number(step)];
      if (next === undefined || next.children.length === 0) break;
      path.push(next);
    }
    return path;
  }

  function open(path) {
    const address = addressOf(path);
    known.set(address, path);
    if (location.hash === address || (location.hash === '' && address === '#')) draw(path);
    else location.hash = address;
  }

  function draw(path) {
    const before = here.path;
    const focused = document.activeElement !== document.body;
    here = { path };
    const node = path.at(-1);
    drawCrumbs(path);
    drawMap(node);
    drawLegend(node);
    drawFacts(node);
    drawTable(node);
    document.title = `${node === top ? file : node.name} · where the bytes go`;
    // Back to where the keyboard was: going up to the tile that was left, going down to the first tile.
    const came = before.length > path.length ? before[path.length] : undefined;
    const left = came === undefined ? undefined : mapElement.children[grouped(node, mostTiles).filter((child) => child.bytes > 0).indexOf(came)];
    if (focused) (left ?? mapElement.querySelector('button:not([disabled])'))?.focus({ preventScroll: true });
  }

  function goUp() {
    if (here.path.length > 1) open(here.path.slice(0, -1));
  }

  /** The tile that lies nearest in the direction of an arrow key. */
  function neighbour(from, key) {
    const box = (tile) => { const { left, top: up, width, height } = tile.getBoundingClientRect(); return { x: left + width / 2, y: up + height / 2 }; };
    const start = box(from);
    const distance = (tile) => {
      const { x, y } = box(tile);
      const [ahead, aside] = key === 'ArrowLeft' ? [start.x - x, y - start.y] : key === 'ArrowRight' ? [x - start.x, y - start.y] : key === 'ArrowUp' ? [start.y - y, x - start.x] : [y - start.y, x - start.x];
      return ahead <= 1 ? Infinity : ahead + 2 * Math.abs(aside);
    };
    const tiles = [...mapElement.querySelectorAll('button:not([disabled])')].filter((tile) => tile !== from && distance(tile) < Infinity);
    return tiles.sort((a, b) => distance(a) - distance(b))[0];
  }

  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Escape' || event.key === 'Backspace') {
      event.preventDefault();
      goUp();
    } else if (event.key.startsWith('Arrow') && mapElement.contains(document.activeElement)) {
      event.preventDefault();
      neighbour(document.activeElement, event.key)?.focus({ preventScroll: true });
    }
  });
  window.addEventListener('hashchange', () => { draw(known.get(location.hash) ?? pathOf(location.hash)); });

  let drawn = '';
  new ResizeObserver(() => {
    const size = `${String(mapElement.clientWidth)} ${String(mapElement.clientHeight)}`;
    if (size === drawn) return;
    drawn = size;
    drawMap(here.path.at(-1));
  }).observe(mapElement);
  draw(pathOf(location.hash));
})();
