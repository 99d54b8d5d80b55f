"""Study plans: what a site is asked to agree to, everything that leaves it, and the page an officer reads."""
