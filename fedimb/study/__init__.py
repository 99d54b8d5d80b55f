"""Many runs as one study: what is compared (plan), doing it (pool, tuning, references), and what came out (results)."""
