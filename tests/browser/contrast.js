// Returns what does not reach WCAG 2.2 AA: text below 4.5 (3 if large), graphics below 3.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}

function over(top, below) {
  const a = top[3];
  return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a)).concat(1);
}

function ground(element) {
  const stack = [];
  for (let node = element; node; node = node.parentElement) {
    stack.push(rgba(getComputedStyle(node).backgroundColor));
  }
  return stack.reverse().reduce((below, top) => over(top, below), rgba("Canvas"));
}

function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((c) => {
    const s = c / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}

function ratio(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

const poor = [];
let seen = 0;

function judge(what, front, element, need) {
  const back = ground(element);
  const found = ratio(over(rgba(front), back), back);
  seen += 1;
  if (found < need) poor.push(`${what}: ${found.toFixed(2)} < ${need}`);
}

for (const element of document.querySelectorAll("body, body *")) {
  const style = getComputedStyle(element);
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (element.checkVisibility({ visibilityProperty: true }) && own) {
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    judge(`${element.className || element.localName} "${element.textContent.trim().slice(0, 30)}"`, style.color, element, large ? 3 : 4.5);
  }
  if (element.localName === "rect" && element.getAttribute("width") !== "0") {
    judge(`rect in ${element.closest("[class]").parentElement.className}`, style.fill, element.closest("svg").parentElement, 3);
  }
  if (element.localName === "i" && element.className) judge(`mark ${element.className}`, style.backgroundColor, element.parentElement, 3);
  if (element.localName === "input" && element.type === "search") {
    judge("placeholder", getComputedStyle(element, "::placeholder").color, element, 4.5);
    judge("edge of the input", style.borderTopColor, element.parentElement, 3);
  }
}
return { poor, seen };
