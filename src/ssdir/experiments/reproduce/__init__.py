"""The paper's evidence, made again by a command: plan, runner, tables and figures, report."""
