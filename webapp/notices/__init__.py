"""Words that leave the site when a run has ended: e-mail, signed webhooks, notifications of an open page."""
