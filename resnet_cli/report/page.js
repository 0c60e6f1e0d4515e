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
      button.append(...head.childNodes);
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

  // --- the explorer
  const networks = JSON.parse(document.getElementById("networks-data").textContent);
  const view = document.getElementById("explorer");
  if (!networks.length) { view.hidden = true; return; }
  const [choice, slider, units, lengths, unitText, lengthText, caption] =
    ["network", "length", "units", "lengths", "unit-text", "length-text", "units-caption"].map((id) => document.getElementById(id));
  const draw = (parent, name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, content] of Object.entries(attributes)) node.setAttribute(key, content);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  };
  const raised = (power) => [...String(power)].map((digit) => digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  const percent = (share) => {
    if (share === null) return "not sampled";
    const p = 100 * share;
    if (p === 0 || p >= 0.01) return p === 0 ? "0 %" : `${p.toPrecision(3)} %`;
    const [digits, power] = p.toExponential(1).split("e");
    return `${digits}×10${raised(Number(power))} %`;
  };
  networks.forEach((network, index) => choice.append(new Option(network.name, index)));

  const LEFT = 40, TOP = 24, HIGH = 130, TRUNK = 202, BOX = 180;
  const steps = (count) => count > 20 ? 10 : 1;
  // one scale of lengths for all networks, in whole tens of percent
  const most = Math.ceil(10 * Math.max(...networks.flatMap((n) =>
    [n.share_paths, n.share_sampled, n.share_exact].flat().map((share) => share ?? 0)))) / 10;
  let network, marker, step, width, bars;
  let at = null; // the unit that is read, if any

  const told = (index) => {
    const down = network.downsampling.includes(index);
    return `Unit ${index} (stage ${network.stages[index]}${down ? ", downsampling" : ""}): without it `
      + `the test error is ${network.errors[index].toFixed(2)} %; intact it is ${network.baseline.toFixed(2)} %, on ${network.images} images.`;
  };
  const read = (index) => {
    at = index;
    bars.forEach((unit, other) => {
      unit.classList.toggle("at", other === at);
      unit.setAttribute("tabindex", other === (at ?? 0) ? 0 : -1); // one stop for the tab key
    });
    unitText.textContent = at === null
      ? `Intact, the network's test error is ${network.baseline.toFixed(2)} %. Hover over a bar or tap it.` : told(at);
  };
  const nearest = (event) => {
    const x = event.clientX - units.getBoundingClientRect().left;
    read(Math.min(bars.length - 1, Math.max(0, Math.floor((x - LEFT) / step))));
  };
  units.addEventListener("pointermove", nearest);
  units.addEventListener("click", (event) => {
    nearest(event);
    bars[at].focus({ preventScroll: true }); // the arrow keys go on from here
  });
  units.addEventListener("keydown", (event) => {
    const last = bars.length - 1, now = at ?? 0;
    const to = { ArrowLeft: Math.max(0, now - 1), ArrowRight: Math.min(last, now + 1), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    bars[to].focus();
  });

  const drawUnits = () => {
    units.replaceChildren();
    units.setAttribute("viewBox", `0 0 ${width} 234`);
    step = (width - LEFT - 2) / network.errors.length;
    draw(units, "text", { x: 0, y: 12, class: "title" }, "test error after deleting the unit, %");
    for (const error of [0, 20, 40, 60, 80, 100]) {
      const y = TOP + HIGH * (1 - error / 100);
      draw(units, "line", { x1: LEFT, x2: width, y1: y, y2: y, class: "axis" });
      draw(units, "text", { x: LEFT - 5, y: y + 4, "text-anchor": "end" }, error);
    }
    for (let index = 0; index < network.errors.length; index += steps(network.errors.length)) {
      draw(units, "text", { x: LEFT + (index + 0.5) * step, y: TRUNK + 14, "text-anchor": "middle" }, index);
    }
    draw(units, "text", { x: (LEFT + width) / 2, y: TRUNK + 29, "text-anchor": "middle", class: "title" }, "unit, from input to output");
    bars = network.errors.map((error, index) => {
      const x = LEFT + index * step;
      const down = network.downsampling.includes(index);
      const unit = draw(units, "g", { class: "unit", role: "img", "aria-label": told(index) });
      draw(unit, "rect", { class: "hit", x, y: TOP, width: step, height: HIGH });
      const high = Math.max(1, HIGH * error / 100);
      draw(unit, "rect", { class: down ? "bar down" : "bar", x: x + step * 0.15, y: TOP + HIGH - high, width: step * 0.7, height: high });
      unit.addEventListener("focus", () => read(index));
      draw(units, "rect", { class: "box", "data-unit": index, x: x + step * 0.2, y: BOX - 6, width: step * 0.6, height: 12 });
      return unit;
    });
    draw(units, "path", { class: "path", id: "one-path" });
    const others = network.errors.filter((_, index) => index > 0 && !network.downsampling.includes(index));
    const alone = !network.downsampling.includes(0) && network.errors[0] > Math.max(...others, network.baseline + 5);
    caption.textContent = "Purple bars downsample. "
      + (alone ? "Unit 0 stands out although it does not: its input comes straight from the stem. " : "")
      + "Below the bars one path: up through a unit's box is its residual branch, straight on its shortcut.";
  };

  const drawLengths = () => {
    lengths.replaceChildren();
    lengths.setAttribute("viewBox", `0 0 ${width} 212`);
    const count = network.errors.length;
    const curves = [["paths", network.share_paths], ["sampled", network.share_sampled], ["exact", network.share_exact]];
    const x = (k) => LEFT + k * (width - LEFT - 12) / count;
    const y = (share) => TOP + 150 * (1 - share / most);
    draw(lengths, "text", { x: 0, y: 12, class: "title" }, "share of all paths, or of all gradient, %");
    for (let tens = 0; tens <= Math.round(10 * most); tens += 1) {
      draw(lengths, "line", { x1: LEFT, x2: width, y1: y(tens / 10), y2: y(tens / 10), class: "axis" });
      draw(lengths, "text", { x: LEFT - 5, y: y(tens / 10) + 4, "text-anchor": "end", class: "tick" }, 10 * tens);
    }
    for (let k = 0; k <= count; k += steps(count)) draw(lengths, "text", { x: x(k), y: 190, "text-anchor": "middle" }, k);
    draw(lengths, "text", { x: (LEFT + width) / 2, y: 205, "text-anchor": "middle", class: "title" }, "path length k, units passed by their residual branch");
    for (const [key, shares] of curves) {
      const points = shares.map((share, k) => share === null ? "" : `${x(k).toFixed(1)},${y(share).toFixed(1)}`);
      draw(lengths, "polyline", { class: `curve c-${key}`, points: points.join(" ") });
    }
    marker = draw(lengths, "line", { class: "here", y1: TOP - 2, y2: TOP + 150 });
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
  const redraw = () => {
    const focused = bars?.indexOf(document.activeElement) ?? -1;
    width = Math.max(240, units.parentElement.clientWidth);
    drawUnits();
    drawLengths();
    read(at);
    show();
    if (focused >= 0) bars[focused].focus();
  };
  const choose = () => {
    network = networks[Number(choice.value)];
    slider.max = network.errors.length;
    slider.value = network.share_exact.indexOf(Math.max(...network.share_exact));
    at = null;
    redraw();
  };
  choice.addEventListener("change", choose);
  slider.addEventListener("input", show);
  new ResizeObserver(() => { if (Math.max(240, units.parentElement.clientWidth) !== width) redraw(); }).observe(units.parentElement);
  choose();
})();
