"""The catalogue: what each reason's code means, in English. Its Spanish is in locale/es/LC_MESSAGES/relevo.po.

A code has one sentence, or several from the most to the least specific: the first whose values are all known is used.
"""

SENTENCES: dict[str, str | tuple[str, ...]] = {
    # Who says what of a host, as an incident keeps it: a name, a colon, a word.
    "heard-last": (
        "controller {controller}: last beat {age_s} s ago{doubt}",
        "controller {controller}: last beat {age_s} s ago",
    ),
    "heard-never": (
        "controller {controller}: no beat yet{doubt}",
        "controller {controller}: no beat yet",
    ),
    "heard-nothing-for": (
        "controller {controller}: no beat for {age_s} s{doubt}",
        "controller {controller}: no beat for {age_s} s",
    ),
    "heard-well": (
        "controller {controller}: hears it{doubt}",
        "controller {controller}: hears it",
    ),
    "heard-not": (
        "controller {controller}: does not hear it{doubt}",
        "controller {controller}: does not hear it",
    ),
    "said-by": "{witness} {id}: {health} for {since_s} s",
    "said-itself": "its own report: {agent_state}",
    # What a penalty stands on.
    "proof-process": "process {pid}: {user} {command}, {cores} cores",
    "proof-asked": "asked {times} times: {path}",
    # What is seen of a host: the judge.
    "answers": "It reports, and nobody sees anything wrong.",
    "not-heard-yet": "Nothing has been heard of it yet.",
    "not-judged-here": "This controller has not judged it: it does not lead, or has just begun to.",
    "never-reported": "It has never reported, so its silence says nothing.",
    "observers-doubt": (
        "The controllers don't agree, or doubt themselves: unreachable for {unreachable}, "
        "needed {needed}."
    ),
    "announced-shutdown": "The machine has announced its shutdown.",
    "agent-restarting": "Its agent is restarting; the host goes on serving.",
    "silent": "No beat for {silence_s} s.",
    "witnesses-cannot-reach": "It reports, but none of its witnesses gets an answer from it (witnesses: {witnesses}).",
    "service-check-disputed": (
        "Its own check of the web service fails, but others get answers (witnesses: {witnesses})."
    ),
    "service-down-in-package-run": "Its web service is down while packages are being installed: that is waited for.",
    "service-down-no-restart": "Its web service is down, and its agent may not restart it.",
    "service-failing": (
        "Its web service has been failing for {for_s} s; it is called down after {of_s} s and "
        "a failed restart."
    ),
    "no-other-witness": "Only one observer has lost it, and no other witness can say whether it answers.",
    "agent-silent-host-answers": (
        "Its agent has been silent for {silence_s} s, but the host goes on answering (witnesses: {witnesses}).",
        "Its agent has never been heard, but the host answers (witnesses: {witnesses}).",
    ),
    "silent-and-no-answers": (
        "No beat for {silence_s} s, and no witness gets an answer (witnesses: {witnesses}).",
        "It is silent, and no witness gets an answer (witnesses: {witnesses}).",
    ),
    # Why a site is where it is.
    "placed-at-home": "At home.",
    "dead": "Moved because {host} was dead.",
    "leaving": "Moved because {host} was shutting down.",
    "service-down": (
        "Moved because the web service of {host} was down.",
        "Its web service is down, a restart did not help, and no witness gets an answer.",
    ),
    "drain": "Moved because {host} is being drained.",
    "move": "Moved by {owner}: {reason}",
    "bring-home": "Brought home by {owner}: {reason}",
    "drained": "Drained by {owner}: {reason}",
    "moved-by-people": "Moved by the people who run the servers.",
    # What a member is told of a penalty on its own site: what it means, and why.
    "my-site-last": "It runs, after its neighbours when there is a queue.",
    "my-site-capped": "It runs with {percent} % of its plan.",
    "my-site-isolated": (
        "It is cut off: nothing of it goes out but DNS, mail by the local server and its database, "
        "and visitors may see a page that says to come back later."
    ),
    "my-site-stopped": "It is stopped, and visitors can't see it.",
    "my-site-relieved": (
        "It has all of its plan; those of its programs that want more memory than there is for it "
        "are ended."
    ),
    "held-by-people": "The people who run the servers ordered it; ask them.",
    "held-as-hacked": (
        "It does what no web site does, and was probably broken into. Change its passwords, look for "
        "files and scheduled jobs that are not yours, and write to the people who run the servers."
    ),
    "held-for-memory": "It stood still for want of memory that its plan does not have.",
    "held-in-danger": "Because of it its server was about to stand still for {resource}.",
    "held-for-neighbours": (
        "Other sites on its server waited {stall_percent} % of their time for {resource}, while it took "
        "{share_percent} % ({nature}).",
        "Other sites on its server waited for {resource} because of it ({nature}).",
    ),
    "held-for-the-host": "Other sites on its server suffered from it.",
    # Why a site does not move.
    "gated-not-fenced": (
        "The site is gated: it moves only when its old host is known to write no more. A "
        "person's word on that lets it move."
    ),
    "manual": "The site moves only when a person says so.",
    "no-standby-declared": "It has no standby where it could go.",
    "standby-not-in-fleet": "{host} is not in the fleet.",
    "standby-not-up": "{host} is {verdict}, not up.",
    "standby-draining": "{host} is being drained.",
    "standby-just-returned": "{host} came back less than {of_s} s ago.",
    "standby-full": "{host} has as many sites as it may have ({max_sites}).",
    "standby-short-of-memory": "{host} is short of memory (free share: {available}).",
    "chosen": "{host} takes it.",
    "not-placed-yet": "The site {site} is not placed yet; that takes a moment after it was declared.",
    # What stops a plan: the guards.
    "observing": "Failover of {host} is not armed: relevo only observes.",
    "brake": (
        "Too many causes in one hour: {spent} of {allowed} are spent, and everything automatic "
        "waits for a person."
    ),
    "paused": "Failover was paused by {owner}: {reason}",
    "refused": "{owner} refused to have its sites moved: {reason}",
    "leader-doubts-itself": (
        "The controller doubts itself: its own loop was late, or it lost most of its links at once."
    ),
    "location-in-question": (
        "Hosts lost at once in {location}: {lost} of {hosts}. "
        "The question is the location or the network there, not the hosts, and a person answers it."
    ),
    "store-rewound": (
        "{host} holds epoch {epoch}, above the store's {ours}: the store is older than what "
        "was already in force. "
        "Nothing is ordered until it is recovered."
    ),
    # Why an order was refused.
    "fleet-changed": (
        "The fleet has changed since: compared with revision {base}, now at {now}; "
        "the last change is {change}, by {who}. Compare again.",
        "The fleet has changed since: compared with revision {base}, now at {now}. Compare again.",
    ),
    "caps-untried": (
        "Shadow has watched these caps for {days} of {enough} days "
        "({sites} sites, {untold} of which have told nothing yet); "
        "in the last week they would have slowed {slowed} sites, for {minutes} minutes in all."
    ),
    "fleet-removes": "This would remove {names} ({removed} in all), and removing wants a word of its own.",
    "fleet-too-many-removed": (
        "The file would remove {removed} of {of} {kind} at once; {allowed} are allowed. Was it cut short?"
    ),
    "host-still-serves": (
        "{host} still serves the site {site} ({count} in all); drain the host, or move them, before you remove it."
    ),
    "item-exists": "{item} is declared already; to change it, say which one you have read.",
    "item-gone": "{item} is not declared, or no longer.",
    "item-changed": "{item} is not what you have read: it was changed since. Read it again.",
    "still-needed": "{item} is still needed by {by} ({count} in all). Change those first.",
    "details-gone": (
        "What change {change} did is no longer kept in every detail. Apply an older fleet file in its place."
    ),
    "undo-conflict": (
        "Change {change} can't be undone alone: {items} changed again since, by change {later}. "
        "Undo that first, or change it by hand.",
        "Change {change} can't be undone alone: {items} changed again since. Change it by hand.",
    ),
    "undo-leaves": (
        "Without change {change} the fleet would not hold together: {items}, changed since by change {later}. "
        "Undo that first, or change it by hand.",
        "Without change {change} the fleet would not hold together: {items}. Change that first.",
    ),
    "undone-already": "Nothing is left of what change {change} did.",
    "not-rewound": "The store was not rewound: there is nothing to recover.",
    "nobody-recalls": (
        "No agent answered with orders of this cluster ({strangers} with another one's): "
        "wait until agents are connected, or look whether this is the right store."
    ),
    "recovery-unheard": (
        "{count} hosts say nothing, and may know what nobody else does: {silent}. "
        "Wait until they are connected; for one that is gone for good, say that you recover anyway."
    ),
    "recovered-from-agents": "Recovered from what agents and edges held after the store was rewound.",
    "changed-meanwhile": (
        "Somebody else changed the same thing in the same moment. Look, and repeat it if it is "
        "still right."
    ),
    # Why an order about access was refused.
    "token-exists": "There is a token {name} already; revoke it, or take another name.",
    "too-many-tokens": "There are {most} tokens, and no more are kept; revoke some that nobody uses.",
    "token-in-file": "{name} stands in a file of the controllers (admins); take the line out there, on each of them.",
    "join-token-used": "This token for {host}, made by {by}, was used already; ask for another one.",
    "no-credential": "{host} has no credential: it has not joined, or was revoked.",
    "not-asked-to-change": "{host} was not asked to change its credential.",
    # The lines of an incident.
    "verdict": "Verdict: {verdict}.",
    "decided": "Decided: moves {moved}, only observed {would}, held {held}.",
    "observed": "Only observed, because failover is not armed: would move {would}, held {held}.",
    "held": "Nothing may move: held {held}.",
    "edge-kept": "{edge} stays in the DNS: {because}",
    "held-because": "Held {sites}: {because}",
    "held-otherwise": "Held {sites} more, for other reasons; the list of held sites has each one's.",
    "committed": "Committed at epoch {epoch}.",
    "edge-follows": "The edge follows.",
    "edges-follow": (
        "Every live edge follows ({edges}). Not live: {silent}.",
        "Every live edge follows ({edges}).",
    ),
    "dns-sent": "DNS sent (zones: {zones}).",
    "dns-server-answers": "The name server answers as intended.",
    "dns-everywhere": "Every name server answers as intended (zones: {zones}).",
    "proven": "Proven by real requests through every live edge (sites: {sites}).",
    "complete": "Complete.",
    "edge-withdrawn": "{host} leaves the DNS: visitors are sent to the other edges.",
    "recovered": "Recovered: the cause is over, and everything it asked for is done.",
    "cause-over": "The cause ended before anything was done.",
    # DNS.
    "dns-too-many-changes": (
        "Too many changes at once in {zone}: {updated} updated, {removed} removed of {names} "
        "names; {allowed} are allowed."
    ),
    "dns-bad-mark": "The ownership mark of {name} can't be read: {text}",
    "dns-other-cluster": "{name} belongs to another cluster ({cluster}); this one is {ours}.",
    "dns-cname": "{name} is an alias of {alias}, and aliases are left alone.",
    "dns-newer-writer": "{name} was written at epoch {epoch}, which is not below ours, {ours}.",
    "dns-not-ours": "{name} has addresses that relevo did not write ({addresses}), and they are left alone.",
    "dns-not-converged": "Not every name server of {zone} answers as intended: {servers}.",
    "dns-no-key": "The zone {zone} wants the TSIG key {key}, which this controller's configuration lacks.",
    "dns-raced": "Somebody else changed {name} while it was being written.",
    "dns-name-too-long": "{name} is too long to carry an ownership mark.",
    "dns-delegated": "{name} is delegated out of {zone}.",
    "dns-name-refused": "{server} refuses to change {name}.",
    "dns-unreachable": "The name server {server} of {zone} can't be reached: {error}.",
    "dns-timeout": "The name server {server} of {zone} did not answer within {seconds} s.",
    "dns-bad-time": "The name server {server} and this controller differ about the time ({rcode}).",
    "dns-bad-key": "The name server {server} does not accept the TSIG key {key} for {zone} ({rcode}).",
    "dns-bad-answer": "The name server {server} of {zone} gave an answer that can't be used: {detail}.",
    "dns-refused": "The name server {server} refuses to change {zone} ({rcode}).",
    "dns-not-served": "The name server {server} does not serve {zone} ({rcode}).",
    "dns-server-failed": "The name server {server} failed on {zone} ({rcode}).",
    "dns-not-authoritative": "The name server {server} answers for {zone}, but not with authority.",
    # What the kernel holds, and why.
    "cap-plan": "As the plan says.",
    "cap-shared": "As the roomiest plan says: {sites} sites share these caps.",
    "cap-as-armed": "As the plan was when it was armed; it is stricter now, which is only measured until armed again.",
    "cap-override": "By an override of {owner}: {reason}",
    "cap-half-host": "Half of this host's {cores} cores: no site gets more.",
    "cap-no-swap": "This host has no swap: the maximum alone holds the memory.",
    "cap-no-swap-of-plan": "The plan gives it no swap: the maximum alone holds the memory.",
    "cap-no-disk": (
        "{mount} is {kind}, on no disk that the kernel could limit: what is read and written there is not held.",
        "No disk that the kernel could limit is under the sites of this host: what they read and write is not held.",
    ),
    "cap-disks-unseen": "What sites read and write is not held: which disks they are on can't be told: {error}",
    "cap-low-shared": (
        "{percent} % of the plan: what is promised to all sites here together is more than this host can keep."
    ),
    "cap-no-controller": "The kernel of this host does not offer {controller} by group.",
    "cap-soft": "Last when there is a queue, by a penalty.",
    "cap-share": "{percent} % of the plan, by a penalty.",
    "cap-futile": "Reclaiming its memory frees nothing: what is over the maximum ends inside the site.",
    "cap-isolated": "Nothing goes out but DNS, mail by the local server and the database, by a penalty.",
    "cap-stopped": "Stopped, by a penalty.",
    "cap-own": "As this host has it: no plan and no penalty speaks of it.",
    "cap-with-others": "{because} That is for {of}; {others} share the slice, and are held with it.",
    "cap-spares": (
        "{site} is to be held harder than a cap. Its slice is {others}' too, so no more is done "
        'before a person says so: relevo site quarantine {site} --reason "…"'
    ),
    # Who holds caps on a host, and what can't be held there at all.
    "caps-by-systemd": "systemd is this host's first process.",
    "caps-by-subtree": "{subtree} is delegated to the agent.",
    "unable-off": "It is switched off in agent.toml: caps.driver.",
    "unable-v1": "This host has cgroup v1, or none: boot it with systemd.unified_cgroup_hierarchy=1.",
    "unable-controllers": "The kernel gives this machine no controllers: cpu, memory, io and pids are missing.",
    "unable-systemd": "systemd does not run here: delegate a cgroup subtree, and name it in caps.subtree.",
    "unable-root": "The agent is not root: systemd would refuse it.",
    "unable-unnamed": "caps.driver is cgroupfs, and caps.subtree names no directory.",
    "unable-subtree": "{subtree} is no cgroup v2 directory with controllers.",
    "unable-delegated": "{subtree} is not delegated to the agent: it can't write there.",
    "unable-egress": "What sites send out is not held: {error}",
    "unable-kept": "A restart of its agent would forget what is held, which can't be written down: {error}",
    "unable-unread": (
        "What was capped or stopped before can't be read: see {path}, start what stands still, then remove it."
    ),
    "unable-quota-root": "Quotas of disks are not held: the agent is not root.",
    "unable-quotas-refused": "The quotas of {users} users are not held: of uid {uid} on {mount}: {error}",
    "unable-quota": "Quotas of disks are not as they should be: {error}",
    # What of its caps is not held, and why.
    "cap-waits-for": "Its caps wait: {sites} run in {slice} too and are in shadow, and one cap would hold them all.",
    "mail-waits-for": "Port 25 is open to it: it runs as {user}, and so do {sites}, whose caps are in shadow.",
    "mail-open": "Port 25 is open to it: no account that it runs as is known on its host.",
    "egress-open": (
        "It is closed at the edges only: it runs as an account of many, whom closing what it "
        "sends out would close too."
    ),
    "cap-in-steps": (
        "{limit} goes down in steps, as memory in use is freed: {wanted} wanted, {now} now, {used} in use."
    ),
    "cap-makes-room": "{limit} is {now} for a while: pages of files make room for a lower maximum, {used} are in use.",
    "cap-no-file": "The kernel of this host has no {file} here: it can't hold that.",
    "cap-not-held": "The kernel does not hold what it was told: {caps}.",
    "cap-refused": "It was refused, and is tried again: {error}",
    "cap-egress-by-user": "What it sends out is held by user only: rules by address are systemd's.",
    # What may be kept on disk, and why not.
    "disk-near": (
        "It keeps {kept} in {files} files, nine tenths or more of its plan's disk. Past the plan it can write for the "
        "grace of its file system, usually a week, and to a tenth more."
    ),
    "disk-full": (
        "It keeps {kept} in {files} files, more than its plan's disk. At a tenth more, or after the grace of its file "
        "system, usually a week, it can't write any more."
    ),
    "quota-held": "{mount} ({kind}) holds users to what the plans of their sites let them keep.",
    "quota-shared": "As the plans of {sites} sites say together: they share a user, and files are told apart by user.",
    "quota-each": "Each of its {users} users may keep that much: the kernel adds nobody up.",
    "quota-over": "{kept} are kept already: it goes down to the plan as that shrinks.",
    "quota-no-user": "It has no user of its own: its files can't be told from others'.",
    "quota-kind": "{mount} is {kind}, of which relevo can't hold users to a quota: what is kept there is not held.",
    "quota-off": (
        "{mount} ({kind}) keeps no quota of users, so what is kept there is not held. Add usrquota to its options in "
        "/etc/fstab, then: umount {mount} && tune2fs -O quota {source} && mount {mount}."
    ),
    "quota-counted": (
        "{mount} ({kind}) counts what users keep and holds nobody to it. Add usrquota to its options in /etc/fstab, "
        "then: umount {mount} && mount {mount}."
    ),
    "quota-root": (
        "{mount} ({kind}) holds nobody to a quota, so what is kept there is not held. How to turn that on without a "
        "rescue system: docs/caps.md, Disk."
    ),
    "quota-mount": (
        "{mount} ({kind}) holds nobody to a quota. Add usrquota to its options in /etc/fstab, then: umount {mount} && "
        "mount {mount}."
    ),
    "quota-unseen": "What users keep on {mount} can't be asked for: {error}.",
    # What a host's own settings do to what it holds.
    "dirty-ratio": (
        "Up to {percent} % of free memory may be full of writes before they go to the disk, at the pace of one site's "
        "plan: on ext4 its neighbours wait meanwhile, for seconds. Write vm.dirty_background_bytes = {background} and "
        "vm.dirty_bytes = {most} into /etc/sysctl.d/60-dirty.conf, then: sysctl --system. For slow disks see "
        "docs/caps.md, Writes that wait."
    ),
    # Why a site is held, or no longer, and what a host wants people for: the ladder of isolation.
    "isolation-sign": (
        "Something odd shows ({signs}, {mails_per_s} a second): it is looked at more often, and nothing is held.",
        "Something odd shows ({signs}): it is looked at more often, and nothing is held.",
    ),
    "isolation-followed": (
        "It was penalized where it was served before. Here it is only looked at, until this host has proof of "
        "its own."
    ),
    "isolation-suspect": (
        "Its neighbours waited {stall_percent} % of their time for {resource}, in step with it; it took "
        "{share_percent} % ({nature}). It goes last when there is a queue."
    ),
    "isolation-blunt": (
        "Its neighbours waited {stall_percent} % of their time for {resource}, in step with it; it took "
        "{share_percent} % ({nature}). It is held at half of its plan for a short time."
    ),
    "isolation-urgent": (
        "Its neighbours waited {stall_percent} % of their time for {resource}, in step with it; it took "
        "{share_percent} % ({nature}). There was no time for a gentler step."
    ),
    "isolation-again": (
        "It is the cause again, soon after gentler steps: its neighbours waited {stall_percent} % of their "
        "time for {resource}, and it took {share_percent} % ({nature})."
    ),
    "isolation-many": (
        "It is the cause again, after several caps in one day: its neighbours waited {stall_percent} % of "
        "their time for {resource}, and it took {share_percent} %."
    ),
    "isolation-persists": (
        "It is still the cause: its neighbours wait {stall_percent} % of their time for {resource}, and it "
        "takes {share_percent} %. It is held tighter."
    ),
    "isolation-partly": (
        "Of what its neighbours waited for {resource} beyond the usual, {fell_percent} % went when it was held. The "
        "rest is still too much: it is held tighter."
    ),
    "isolation-gently": (
        "It is still the cause, by a crowd of visitors and no fault of its own: its neighbours wait {stall_percent} % "
        "of their time for {resource}. It goes on to go last, and is not held tighter yet."
    ),
    "isolation-unbitten": "The step did not hold it: it takes as much of {resource} as before. It is held tighter.",
    "isolation-unhelpful": (
        "It was held, and its neighbours wait for {resource} as before: it was not the cause. It is let go."
    ),
    "isolation-parted": "Holding it for {resource} helped nobody: that is undone, and the rest goes on.",
    "isolation-hacked": (
        "It does what no web site does ({signs}): nothing of it goes out but DNS, mail by the local server "
        "and the database."
    ),
    "isolation-danger": (
        "The host was about to stand still for {resource}, although the site was held: it is stopped."
    ),
    "isolation-crowded": (
        "This host has fewer sites now, and holds no more of them than it may without a person: it is let go."
    ),
    "isolation-armed": "Its caps hold from now on: what was only recorded of it is decided anew.",
    "isolation-loosened": "The term of its tight limit is over: half of its plan for a while, then all of it.",
    "isolation-over": "Its term is over: it has all of its plan, and is looked at more often for a day.",
    "isolation-isolated-long": (
        "It was cut off for as long as may be without a person: it has all of its plan again, and is looked "
        "at more often."
    ),
    "isolation-after-stop": "It was stopped for long enough: it runs again, cut off from outside.",
    "isolation-forgotten": "Nothing more was seen of it.",
    "isolation-released": "A person released it.",
    "isolation-by-person": (
        "By {owner}, which holds {others} too, who share its slice: {reason}",
        "By {owner}: {reason}",
    ),
    "isolation-futile": (
        "It stands still reclaiming memory that is not there: its soft limit is lifted, so that what is too "
        "much ends inside the site."
    ),
    "isolation-too-many": (
        "{held} sites are held here, and without a person no more than {most}: {site} would be the next."
    ),
    "isolation-pendulum": "{site} was held {times} times in the last hour: a person should look at it.",
    "isolation-stopped-again": (
        "{site} was stopped {times} times within a day: each time that it ran again it brought its host into danger. "
        "A person should look at it."
    ),
    "isolation-no-culprit": (
        "Sites wait {stall_percent} % of their time for {resource}, for {for_s} s now, and no site was found "
        "to be the cause. Nobody is punished; look at the host."
    ),
    "isolation-released-suspect": (
        "Sites wait {stall_percent} % of their time for {resource}, for {for_s} s now, and the cause seems to "
        "be {site}, which a person released."
    ),
    "isolation-held-suspect": (
        "Sites wait {stall_percent} % of their time for {resource}, for {for_s} s now, and the cause seems to "
        "be {site}, which a person holds: it still takes {share_percent} %. Hold it harder, or look at the host."
    ),
    "isolation-nothing-helps": (
        "Sites wait {stall_percent} % of their time for {resource}, for {for_s} s now; what may be done about "
        "{site} without a person was done."
    ),
    "isolation-in-shadow": (
        "Sites wait {stall_percent} % of their time for {resource}, for {for_s} s now, and the cause seems to "
        "be {site}, whose caps are in shadow: nothing holds it. Arm them, or quarantine it."
    ),
    "isolation-queues": (
        "Visitors of {sites} sites wait for PHP longer than a second, for {for_s} s now, though CPUs, memory and "
        "disks of this host have room: look at the database, the network, and what these sites ask elsewhere."
    ),
    "isolation-look-again": (
        "{site} was cut off for as long as may be, and is open again: a person should look at it."
    ),
    # What a host calls people for, as a headline: without a full stop.
    "call-stopped-again": "{site} on {host} was stopped {times} times within a day",
    "call-in-shadow": "{host} is in trouble: the cause seems to be {site}, whose caps only watch",
    "call-released-suspect": (
        "{host} is in trouble: the cause seems to be {site}, which a person released"
    ),
    "call-held-suspect": (
        "{host} is in trouble: the cause seems to be {site}, which a person holds, and it does not end"
    ),
    "call-nothing-helps": "{host} is in trouble, and what relevo may do by itself does not end it",
    "call-too-many": "{host} holds as many sites as it may without a person: {site} would be the next",
    "call-no-culprit": "{host} is in trouble, and no site is found to be the cause",
    "call-queues": "{host} has room, and visitors of {sites} sites wait for PHP",
    "call-pendulum": "{site} on {host} is held and let go again and again",
    "call-look-again": "{site} on {host} is open again, after the longest isolation without a person",
    "call-unknown": "{host} asks for help",
    # How a host runs a site, and what would better it.
    "layout-own-slice": "All of it is in {slice}, its PHP as {unit}: every cap holds.",
    "layout-doubled": (
        "It is in {slice}, but {unit} has the pool {pool} at the same socket again, and will "
        "not start with it: relevo layout convert {site} takes it out again."
    ),
    "layout-slice-beside": (
        "Its services are in {slice}; logins and cron jobs of {users} are in slices of "
        "their own beside it, each held to the plan by itself."
    ),
    "layout-slice-shared": (
        "It shares {slice} with {others}, and one cap holds them together. A Unix user for each "
        "would part them."
    ),
    "layout-slice-apart": (
        "It is in {slice}, held by a cap of its own, though {others} have its Unix user too: whoever shares a "
        "user shares its cap, in {wanted}. relevo layout convert {site} moves a unit that relevo "
        "made; put Slice={wanted} into another one."
    ),
    "layout-slice-named": "The fleet names {slice} for it; whether all of it runs there can't be told here.",
    "layout-slice-leaks": (
        "It is in {slice}, but processes of its users run elsewhere too ({where}), where no cap "
        "of it holds. For cron: add pam_systemd to /etc/pam.d/cron."
    ),
    "layout-pool": (
        "Its PHP is the pool {pool} of {unit}, which serves other pools too: its processes are "
        "told by their user, and requests are held at the edges. relevo layout adopt {site} holds "
        "them where they are, relevo layout convert {site} gives it a unit of its own."
    ),
    "layout-adopted": (
        "Its PHP is a pool of {unit}, which serves other pools too; its workers are adopted into "
        "{slice}, where its caps hold. One that has just been started follows within two seconds."
    ),
    "layout-adopted-short": (
        "Its workers are adopted from {unit} into {slice}, but new ones can't be, and run where no "
        "cap holds them: {trouble}."
    ),
    "layout-adoption-fails": (
        "Its workers can't be adopted: {trouble}. They stay in {unit}, where no cap holds them."
    ),
    "adoption-unable": (
        "The agent of this host adopts nobody's workers, because it can hold nothing here. {because} When "
        "that is mended, restart the agent."
    ),
    "adoption-elsewhere": (
        "The agent of this host adopts nobody's workers: caps are held in {subtree}, and only systemd moves workers. "
        "Where systemd runs, set caps.driver to systemd in agent.toml, and restart the agent."
    ),
    "adoption-noted": (
        "The wish is noted, and the agent of this host does it when it runs: it has not said so yet. "
        "How {site} is held is told by relevo layout, whether the agent runs by systemctl status relevo-agent."
    ),
    "layout-workers": (
        "The pool {pool} may have {now} workers, its plan says {plan}: set pm.max_children = {plan} "
        "at {place}, then reload {unit} at a quiet hour, which touches all of its pools."
    ),
    "layout-workers-unsaid": (
        "The pool {pool} does not say how many workers it may have, its plan says {plan}: set "
        "pm.max_children = {plan} at {place}, then reload {unit} at a quiet hour, which touches all "
        "of its pools."
    ),
    "layout-pool-silent": (
        "Its PHP is the pool {pool} of {unit}, which serves other pools too and does not say "
        "how busy it is. Set pm.status_path in the pool; relevo layout adopt {site} holds its "
        "processes where they are, relevo layout convert {site} gives it a unit of its own."
    ),
    "layout-pool-of-all": (
        "Its PHP is the pool {pool} of {unit}, and runs as {user}, as others do: only FPM's "
        "status and the log tell of it. Give the pool a user of its own, then a unit: relevo "
        "layout convert {site}."
    ),
    "layout-pool-shared": (
        "It shares the PHP pool {pool} with {others}: only its access log tells its requests "
        "apart. Give it a pool with a user of its own."
    ),
    "layout-unit-outside": (
        "Its PHP has a unit of its own, {unit}, outside {slice}: its use is seen, and not held. "
        "Put Slice={slice} into the unit."
    ),
    "layout-log": (
        "It runs inside {server}, as its neighbours do: only {log} tells of it, which makes an "
        "estimate. A php-fpm pool with a user of its own would show more."
    ),
    "layout-not-in-slice": (
        "The fleet names {slice} for it, but its PHP runs inside {server}: only {log} tells of it, "
        "which makes an estimate. A php-fpm pool with a user of its own could be held there."
    ),
    "layout-part-inside": (
        "Not all of its PHP is the pool {pool}: that of {place} runs inside {server}, where it can't be held or told "
        "from its neighbours'. Only {log} tells of the whole, which makes an estimate. Let all of its "
        "virtual hosts use the pool."
    ),
    "layout-part-unlogged": (
        "Not all of its PHP is the pool {pool}: that of {place} runs inside {server}, where it can't be held or told "
        "from its neighbours', and it has no access log of its own. Let all of its virtual hosts use the "
        "pool, and give it a log."
    ),
    "layout-no-log": (
        "Nothing of it can be told from its neighbours: it has neither a pool nor an access log "
        "of its own. Give it a log of its own in {server}."
    ),
    "layout-not-served": "No virtual host of this host serves {domain}, and its users run no PHP here.",
}

# Values that are words themselves.
VERDICTS: dict[str, str] = {
    "up": "up",
    "suspect": "suspect",
    "dead": "dead",
    "agent-lost": "without its agent",
    "service-down": "without its web service",
    "leaving": "leaving",
    "restarting": "restarting",
    "unknown": "unknown",
    "drain": "being drained",
}

KINDS: dict[str, str] = {"hosts": "hosts", "sites": "sites"}
RESOURCES = {
    "cpu": "the CPU",
    "memory": "memory",
    "io": "the disk",
    "tasks": "new processes",
    "web": "requests",
    "egress": "traffic outward",
}
NATURES = {
    "heavy": "heavy code",
    "crawled": "crawled by machines",
    "viral": "visited by a crowd",
    "hacked": "probably hacked",
}
# What a site does that web sites do not.
SIGNS = {
    "direct-mail": "mail past the local mail server",
    "refused-mail": "refused tries to send mail past the local mail server",
    "fan-out": "connections to many places",
    "runs-from-uploads": "a program that runs from an upload folder",
    "listens": "a server of its own",
    "cron-changed": "a changed crontab",
    "miner": "much CPU without visitors",
}
# By the name of the value.
HEALTHS = {"up": "up", "down": "down", "unknown": "not known"}
WITNESSES = {"edge": "edge", "neighbour": "neighbour", "controller": "probe of the controller"}
STATES = {"running": "running", "restarting": "restarting", "leaving": "shutting down"}
DOUBT = {"yes": ", doubts itself"}
WORDS = {
    "verdict": VERDICTS,
    "kind": KINDS,
    "resource": RESOURCES,
    "nature": NATURES,
    "signs": SIGNS,
    "health": HEALTHS,
    "witness": WITNESSES,
    "agent_state": STATES,
    "doubt": DOUBT,
}


def sentences(code: str) -> tuple[str, ...]:
    """Those of `code`, the most specific first; empty where there is none."""
    found = SENTENCES.get(code, ())
    return (found,) if isinstance(found, str) else found
