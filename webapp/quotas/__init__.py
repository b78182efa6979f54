"""What a team may use of the site, and what it uses."""
