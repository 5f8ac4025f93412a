// As the window's shell does before any script of the page.
Object.freeze(Object.prototype);
