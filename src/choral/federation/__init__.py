"""What is learned, from whom, under which rules: task, enrolment, model log, provisioning."""
