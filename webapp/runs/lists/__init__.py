"""The list of a team's runs: what is searched for, grouped, sorted and shown, all of which stands in the page's URL."""
