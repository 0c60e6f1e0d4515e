"use strict";
(() => {
  // --- tables that sort by a click on a column's name
  const value = (cell) => {
    const text = cell.textContent.trim();
    const number = text.match(/-?\d+(\.\d+)?/);
    if (text === "") return [2, 0, ""];
    // "fail" without a number, "diverged": worse than any error
    return number ? [0, Number(number[0]), text] : [1, 0, text];
  };
  const before = (a, b) => a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2]);
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        const numeric = column > 0;
        rows.sort((a, b) => {
          const [x, y] = [a, b].map((row) => row.cells[column]);
          const order = numeric ? before(value(x), value(y)) : x.textContent.localeCompare(y.textContent);
          return falling ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // --- the unravelled view
  const networks = JSON.parse(document.getElementById("networks-data").textContent);
  const view = document.getElementById("unravelled");
  if (!networks.length) { view.hidden = true; return; }
  const choice = document.getElementById("network");
  const slider = document.getElementById("length");
  const units = document.getElementById("units");
  const lengths = document.getElementById("lengths");
  const unitText = document.getElementById("unit-text");
  const lengthText = document.getElementById("length-text");
  const WIDTH = 900;
  const draw = (parent, name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, content] of Object.entries(attributes)) node.setAttribute(key, content);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  };
  const percent = (share) => {
    if (share === null) return "not sampled";
    const p = 100 * share;
    return p === 0 ? "0 %" : p < 0.01 ? `${p.toExponential(1)} %` : `${p.toPrecision(3)} %`;
  };
  networks.forEach((network, index) => choice.append(new Option(network.name, index)));

  const LEFT = 40, TOP = 8, HIGH = 130, TRUNK = 186, BOX = 164;
  let network, marker, step;

  const drawUnits = () => {
    units.replaceChildren();
    units.setAttribute("viewBox", `0 0 ${WIDTH} 212`);
    const count = network.errors.length;
    step = (WIDTH - LEFT - 6) / count;
    for (const error of [0, 50, 100]) {
      const y = TOP + HIGH * (1 - error / 100);
      draw(units, "line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "axis" });
      draw(units, "text", { x: LEFT - 5, y: y + 4, "text-anchor": "end" }, `${error}%`);
    }
    network.errors.forEach((error, index) => {
      const x = LEFT + index * step;
      const down = network.downsampling.includes(index);
      const told = `Unit ${index} (stage ${network.stages[index]}${down ? ", downsampling" : ""}): without it `
        + `the test error is ${error.toFixed(2)} %; intact it is ${network.baseline.toFixed(2)} %, on ${network.images} images.`;
      const unit = draw(units, "g", { class: "unit", tabindex: 0, role: "img", "aria-label": told });
      draw(unit, "rect", { class: "hit", x, y: TOP, width: step, height: HIGH });
      const high = Math.max(1, HIGH * error / 100);
      draw(unit, "rect", { class: down ? "bar down" : "bar", x: x + step * 0.15, y: TOP + HIGH - high, width: step * 0.7, height: high });
      const read = () => { unitText.textContent = told; };
      unit.addEventListener("pointerenter", read);
      unit.addEventListener("focus", read);
      draw(units, "rect", { class: "box", "data-unit": index, x: x + step * 0.2, y: BOX - 6, width: step * 0.6, height: 12 });
    });
    draw(units, "path", { class: "path", id: "one-path" });
    draw(units, "text", { x: LEFT, y: 206 }, "a path: through a unit's box its residual branch, below it its shortcut; red bars downsample");
  };

  const drawLengths = () => {
    lengths.replaceChildren();
    lengths.setAttribute("viewBox", `0 0 ${WIDTH} 208`);
    const last = network.paths.length - 1;
    const curves = [["paths", "paths", network.share_paths], ["sampled", "gradient, sampled as published", network.share_sampled], ["exact", "gradient, exact", network.share_exact]];
    const most = Math.max(...curves.flatMap(([, , shares]) => shares.filter((s) => s !== null)));
    const x = (k) => LEFT + (WIDTH - LEFT - 10) * k / last;
    const y = (share) => 170 - 150 * share / most;
    draw(lengths, "line", { x1: LEFT, x2: WIDTH, y1: 170, y2: 170, class: "axis" });
    for (let k = 0; k <= last; k += last > 20 ? 6 : 1) draw(lengths, "text", { x: x(k), y: 184, "text-anchor": "middle" }, k);
    draw(lengths, "text", { x: LEFT, y: 202 }, "path length k");
    draw(lengths, "text", { x: LEFT - 5, y: y(most) + 4, "text-anchor": "end" }, `${Math.round(100 * most)}%`);
    curves.forEach(([key, name, shares], index) => {
      const points = shares.map((share, k) => share === null ? "" : `${x(k).toFixed(1)},${y(share).toFixed(1)}`);
      draw(lengths, "polyline", { class: `curve c-${key}`, points: points.join(" ") });
      draw(lengths, "text", { class: `t-${key}`, x: WIDTH - 10, y: 22 + 16 * index, "text-anchor": "end" }, name);
    });
    marker = draw(lengths, "line", { class: "here", y1: 8, y2: 170 });
    marker.place = (k) => { marker.setAttribute("x1", x(k)); marker.setAttribute("x2", x(k)); };
  };

  const upTo = (shares, k) => shares.slice(0, k + 1).reduce((sum, share) => sum + (share ?? 0), 0);
  const show = () => {
    const k = Number(slider.value), count = network.errors.length;
    const on = new Set(Array.from({ length: k }, (_, i) => Math.floor((i + 0.5) * count / k)));
    let line = `M ${LEFT} ${TRUNK}`;
    for (let index = 0; index < count; index += 1) {
      const x = LEFT + index * step;
      if (on.has(index)) line += ` L ${x + step * 0.1} ${TRUNK} L ${x + step * 0.3} ${BOX} L ${x + step * 0.7} ${BOX} L ${x + step * 0.9} ${TRUNK}`;
      line += ` L ${x + step} ${TRUNK}`;
    }
    document.getElementById("one-path").setAttribute("d", line);
    for (const box of units.querySelectorAll(".box")) box.classList.toggle("on", on.has(Number(box.dataset.unit)));
    marker.place(k);
    slider.setAttribute("aria-valuetext", `${k} of ${count} units`);
    lengthText.textContent = `Length ${k} of ${count}: ${network.paths[k]} paths, ${percent(network.share_paths[k])} of all. `
      + `They carry ${percent(network.share_exact[k])} of the gradient exactly, ${percent(network.share_sampled[k])} as the paper samples it. `
      + `All paths up to this length: ${percent(upTo(network.share_paths, k))} of the paths, `
      + `${percent(upTo(network.share_exact, k))} of the gradient exactly, ${percent(upTo(network.share_sampled, k))} sampled.`;
  };
  const choose = () => {
    network = networks[Number(choice.value)];
    slider.max = network.errors.length;
    const peak = network.share_exact.indexOf(Math.max(...network.share_exact));
    slider.value = peak;
    unitText.textContent = `Intact, the network's test error is ${network.baseline.toFixed(2)} %. Hover over a bar or focus it.`;
    drawUnits();
    drawLengths();
    show();
  };
  choice.addEventListener("change", choose);
  slider.addEventListener("input", show);
  choose();
})();
