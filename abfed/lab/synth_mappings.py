"""How each synthetic brand's export becomes canonical columns: a mapping for each, in YAML.

Kept as text, because a brand writes its mapping by hand: these are also examples of one.
"""

from __future__ import annotations

MAPPINGS: dict[str, str] = {
    "aurora": """\
# Aurora's e-mail tool writes nearly what abfed reads.
experiment: {column: campaign, values: {spring-2026: spring-2026}}
recipient: {columns: [email]}
arm: {column: variant, values: {control: control, warm: warm, urgent: urgent}}
sent_at: {column: sent, format: "%Y-%m-%d %H:%M:%S"}
outcomes:
  opened: {column: opened, yes: ["1"], no: ["0"]}
  clicked: {column: clicked, yes: ["1"], no: ["0"]}
  converted: {column: ordered, yes: ["1"], no: ["0"]}
  unsubscribed: {column: unsubscribed, yes: ["1"], no: ["0"]}
  revenue: {column: order_value}
  hours_to_open: {column: opened_at, moment: "%Y-%m-%d %H:%M:%S"}
features:
  tenure_days: {kind: numeric, column: tenure_days}
  past_opens: {kind: numeric, column: past_opens}
  past_orders: {kind: numeric, column: past_orders}
  channel: {kind: category, column: channel}
  device: {kind: category, column: device}
basis:
  column: basis
  values: {consent: consent, legitimate-interests: legitimate-interests}
opted_out: {column: opt_out, yes: ["1"], no: ["0"]}
region: {column: region}
""",
    "borealis": """\
# Borealis exports codes, German dates and upper-case addresses.
experiment: {column: Test, values: {spring-2026: spring-2026}}
recipient: {columns: [Subscriber]}
arm: {column: Cell, values: {A: control, B: warm, C: urgent}}
sent_at: {column: SendTime, format: "%d.%m.%Y %H:%M:%S"}
outcomes:
  opened: {column: Open, yes: ["yes"], no: ["no"]}
  clicked: {column: Click, yes: ["yes"], no: ["no"]}
  converted: {column: Purchase, yes: ["yes"], no: ["no"]}
  unsubscribed: {column: Unsub, yes: ["yes"], no: ["no"]}
  revenue: {column: Revenue}
  hours_to_open: {column: OpenTime, moment: "%d.%m.%Y %H:%M:%S"}
features:
  tenure_days: {kind: numeric, column: Tenure}
  past_opens: {kind: numeric, column: OpensBefore}
  past_orders: {kind: numeric, column: OrdersBefore}
  channel: {kind: category, column: Channel, values: {W: web, S: store, P: app}}
  device: {kind: category, column: Device, values: {M: mobile, D: desktop, T: tablet}}
basis: {column: LawfulBasis, values: {C: consent, LI: legitimate-interests}}
opted_out: {column: DoNotSell, yes: ["yes"], no: ["no"]}
region: {column: Country}
""",
    "corvid": """\
# Corvid's export has no campaign column: a file is a campaign.
experiment: {constant: spring-2026}
recipient: {columns: [contact_id]}
arm: {column: ab_group, values: {Control: control, Warm: warm, Urgent: urgent}}
sent_at: {column: ts}
outcomes:
  opened: {column: open_flag, yes: ["Y"], no: ["N"]}
  clicked: {column: click_flag, yes: ["Y"], no: ["N"]}
  converted: {column: order_flag, yes: ["Y"], no: ["N"]}
  unsubscribed: {column: unsub_flag, yes: ["Y"], no: ["N"]}
  revenue: {column: spend}
  hours_to_open: {column: open_ts, moment: iso8601}
features:
  tenure_days: {kind: numeric, column: days_known}
  past_opens: {kind: numeric, column: n_opens}
  past_orders: {kind: numeric, column: n_orders}
  channel: {kind: category, column: channel}
  device: {kind: category, column: device}
basis:
  column: legal_basis
  values: {consent: consent, legitimate-interests: legitimate-interests}
opted_out: {column: ccpa_opt_out, yes: ["Y"], no: ["N"]}
region: {column: region}
""",
}
