// What somebody who does not see the page would miss, in words; an empty list is good.
const found = [];
const all = (selector) => [...document.querySelectorAll(selector)];
const at = (element) => element.outerHTML.slice(0, 120);
const name = (element) =>
  (element.getAttribute('aria-label') || element.innerText || element.title || '').trim();

if (!document.documentElement.lang) found.push('the page names no language');
if (!document.title) found.push('the page has no title');
if (all('main').length !== 1) found.push('there is not one main part');

const levels = all('h1, h2, h3, h4, h5, h6').map((heading) => Number(heading.tagName[1]));
if (levels.filter((level) => level === 1).length !== 1) found.push(`headings ${levels}: not one h1`);
levels.forEach((level, i) => {
  if (i > 0 && level > levels[i - 1] + 1) found.push(`headings ${levels}: a level is skipped`);
});

for (const field of all('input:not([type=hidden]), select, textarea')) {
  if (!field.labels.length && !field.getAttribute('aria-label')) found.push(`no label: ${at(field)}`);
}
for (const element of all('button, a[href]')) {
  // What is folded away is not there for anybody.
  if (!element.checkVisibility()) continue;
  if (!name(element)) found.push(`no name: ${at(element)}`);
}
for (const image of all('img, svg')) {
  const hidden = image.closest('[aria-hidden=true]');
  if (!hidden && !image.alt && !image.getAttribute('aria-label')) found.push(`no text: ${at(image)}`);
}
for (const table of all('table')) {
  const headers = [...table.querySelectorAll('th')];
  if (!headers.length) found.push(`no header cells: ${at(table)}`);
  for (const header of headers) if (!header.scope) found.push(`no scope: ${at(header)}`);
}
const ids = all('[id]').map((element) => element.id);
ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => found.push(`two elements are ${id}`));
return found;
