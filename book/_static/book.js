// Three things for keyboards and screen readers that the theme leaves out, and a picture that moves only where it may.
document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");

  // in the contents, the arrow beside a page with pages below it has no name of its own
  for (const arrow of document.querySelectorAll("#pst-primary-sidebar summary")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages below “${page}”`);
  }

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  for (const picture of document.querySelectorAll("svg.rxt-drawing:has(.cycle-step)")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "rxt-motion" });
    const move = (moving) => {
      picture.classList.toggle("rxt-moving", moving);
      button.textContent = moving ? "Stop the picture" : "Let the picture move";
      button.hidden = still.matches;
    };
    button.addEventListener("click", () => move(!picture.classList.contains("rxt-moving")));
    still.addEventListener("change", () => move(!still.matches));
    picture.after(button);
    move(!still.matches);
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
