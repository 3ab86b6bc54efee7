"""One front end for pages and notebooks: modules in `js/`, the model they read written by `export`, and widgets around them."""
