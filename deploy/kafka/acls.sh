#!/usr/bin/env bash
# The least rights of recurd, for `kafka.group_id = "recurd"` and input topic `readings`; a test runs a daemon and a worker with these
# and nothing more. The topics are made beforehand (`kafka.create_topics = false`). Where recurd is to make them, add
# Create on the prefixed topics.
#
#   BOOTSTRAP=broker:9093 CONFIG=admin.properties deploy/kafka/acls.sh
#
# Who may write to topic recurd.models decides what every daemon computes: that is the worker and whoever promotes versions,
# and the daemon is not among them.
set -euo pipefail

acl() { kafka-acls.sh --bootstrap-server "$BOOTSTRAP" --command-config "$CONFIG" --add --allow-principal "User:$1" "${@:2}"; }

# The daemon.
acl recurd --topic readings --operation Read --operation DescribeConfigs
acl recurd --group recurd --operation Read
acl recurd --topic recurd.forecasts --operation Write --operation Read --operation DescribeConfigs
acl recurd --topic recurd.dead-letters --operation Write --operation Read --operation DescribeConfigs
acl recurd --topic recurd.state --operation Write --operation Read --operation DescribeConfigs
acl recurd --topic recurd.epochs --operation Write --operation Read --operation DescribeConfigs
acl recurd --topic recurd.models --operation Read --operation DescribeConfigs
acl recurd --transactional-id recurd --resource-pattern-type prefixed --operation Write --operation Describe

# The worker, and whoever runs `recurd models`.
acl recurd-retrain --topic readings --operation Read --operation DescribeConfigs
acl recurd-retrain --topic recurd.forecasts --operation Describe --operation DescribeConfigs
acl recurd-retrain --topic recurd.dead-letters --operation Describe --operation DescribeConfigs
acl recurd-retrain --topic recurd.state --operation Describe --operation DescribeConfigs
acl recurd-retrain --topic recurd.epochs --operation Read --operation DescribeConfigs
acl recurd-retrain --topic recurd.models --operation Write --operation Read --operation DescribeConfigs
acl recurd-retrain --transactional-id recurd-retrain --operation Write --operation Describe
acl recurd-retrain --transactional-id recurd-publish --operation Write --operation Describe

# Whoever runs `recurd state reset` and `recurd dead-letters retry`; `recurd audit` and `recurd record` only read.
# acl recurd-operator --topic readings --operation Write --operation Read
# acl recurd-operator --topic recurd.dead-letters --operation Write --operation Read
# acl recurd-operator --transactional-id recurd-retry --operation Write --operation Describe

# To end transactions that a broker has lost (docs/guarantees.md): without it the daemon says so, and leaves it to the broker.
# acl recurd --cluster --operation Alter
