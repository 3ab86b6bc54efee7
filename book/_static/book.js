// Three things for keyboards and screen readers that the theme leaves out.
document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");

  // in the contents, the arrow beside a page with pages below it has no name of its own
  for (const arrow of document.querySelectorAll("#pst-primary-sidebar summary")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages below “${page}”`);
  }

  // a formula that is wider than the screen scrolls in its own box; the box must be reachable without a mouse
  const reachable = () => {
    for (const box of document.querySelectorAll('mjx-container[display="true"]')) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  };
  window.MathJax?.startup?.promise?.then(reachable);
  window.addEventListener("resize", reachable);
});
