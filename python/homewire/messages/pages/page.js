"use strict";
(() => {
  const form = document.querySelector("form");
  const button = form.querySelector("button");
  const status = document.querySelector("[role=status]");
  const reasons = {
    INCORRECT_PASSWORD: "This is not the password that was chosen at the registration. If you did not register, close this page.",
    PASSWORD_TOO_SHORT: "This password is too short.",
    PASSWORD_TOO_WEAK: "This password is too easy to guess.",
  };

  // The token came in the fragment, which no server sees. From here on the history does not have it either.
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  history.replaceState(null, "", location.pathname);

  function end(text) {
    form.hidden = true;
    status.textContent = text;
  }

  async function problem(answer) {
    if (answer.status === 429) return "Too many tries. Please wait a while, then try again.";
    if (answer.status >= 500) return "That did not work just now. Please try again.";
    const error = await answer.json();
    return reasons[error.reason];
  }

  async function submit(event) {
    event.preventDefault();
    const fields = { token };
    const chosen = form.querySelector("[name=password]");
    // What is empty counts as not sent, and then nobody is asked. No password is a blank.
    if (chosen) fields.password = chosen.value || " ";
    const password = form.querySelector("[name=newPassword]");
    if (password) {
      if (password.value !== form.querySelector("[name=repeated]").value) {
        status.textContent = "The two passwords are not the same.";
        return;
      }
      fields.newPassword = password.value;
    }
    button.disabled = true;
    status.textContent = "";
    try {
      const answer = await fetch(form.dataset.endpoint, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(fields),
        credentials: "omit",
      });
      if (answer.ok) return end(form.dataset.done);
      const text = await problem(answer);
      if (!text) return end("This link was used already, or is too old. Ask for a new one in the app.");
      status.textContent = text;
    } catch {
      status.textContent = "There is no connection just now. Please try again.";
    } finally {
      button.disabled = false;
    }
  }

  if (token) {
    form.addEventListener("submit", submit);
    form.hidden = false;
  } else {
    end("This link is not complete. Please open it from the mail again.");
  }
})();
