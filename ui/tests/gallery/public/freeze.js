// As the window's shell does before any script of the page. axe cannot be loaded after that.
if (!new URLSearchParams(location.search).has('axe')) Object.freeze(Object.prototype);
