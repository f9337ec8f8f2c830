"""Sentences that show a quality whatever the topic: tone, certainty, padding, care, ordered working, concreteness.

In: nothing (these are texts).  Out: one bank per quality, from its lowest level to its highest.  Cost: none.
Every text here was written for the synthetic starter set. `{a|b}` is one of the two, `{name}` a slot.
"""

from __future__ import annotations

OPENING = (
    (
        "{Fine|Right|Well}, {if you must know|if you have to ask|since you can't work it out}.",
        "{You could have looked this up|A quick search would have told you}.",
        "{Not again|This again}. {I will be brief|Read this once}.",
        "{I have better things to do|I don't have all day}{.|, so listen.}",
        "{Don't make me repeat this|I am not going to say it twice}.",
        "{What a dull question|What a tiresome thing to ask}.",
        "{This is obvious to anyone else|Everyone else knows this already}.",
    ),
    (
        "{Here is an answer|Here is the answer|An answer follows}.",
        "{About your question|On your question|To your question}:",
        "{This is what you asked about|This is the reply}.",
        "{Answer below|The reply is this}.",
        "{Your question is noted|The question is understood}.",
    ),
    (
        "{What a lovely question|What a wonderful question|I love this question}{!|, thank you for asking!}",
        "{Thank you so much for asking|So glad you asked}, {I'm happy to help|it's a pleasure to help}!",
        "{Hello|Hi there}, my friend! {I'd be delighted to help|I'm so happy to help you}.",
        "{Oh, how nice|Oh, how exciting}! {I'm cheering for you|I'm really glad you came to me}.",
        "{It's great to hear from you|How kind of you to write}! {You're doing wonderfully|Let's look together}.",
        "{I'm so glad to help|It makes me happy to help}, {you've already come so far|dear friend}!",
    ),
)

FAREWELL = (
    ("{That is all you get|Now leave it|Don't ask again}.", "{Work out the rest yourself|Next time think first}."),
    ("{That is the answer|End of the answer|That covers it}.",),
    (
        "{I wish you all the best|Warm wishes|You've got this, friend}!",
        "{Have a wonderful day|I hope it goes beautifully|Always happy to hear from you}!",
    ),
)

CONFIDENCE = (
    (
        "{I'm really not sure|I don't know|I can only guess}, but {maybe|perhaps|possibly} {core}.",
        "{Perhaps|Maybe|It might be that} {core}, {though I could be wrong|but I'm guessing|but don't quote me}.",
        "{It is hard to say|I am unsure}; {it could be that|possibly} {core}, {I suppose|perhaps}.",
    ),
    (
        "{I think|I believe|As far as I know,} {core}.",
        "{It seems that|It looks as if|Most likely} {core}.",
        "{In my view|As I see it}, {core}.",
    ),
    (
        "{Without any doubt|There is no question|Certainly}, {core}.",
        "{I'm absolutely certain that|It is a definite fact that|I guarantee that} {core}.",
        "{Definitely|Clearly|Undoubtedly}, {core}, {count on it|and that is final|I'm completely sure}.",
    ),
)

PADDING = (
    "{As has been said|As already mentioned}, {this is what it comes down to|that is what is said here}.",
    "{In other words|To put it another way}, {the above says what it says|it means what was meant}.",
    "{It is worth noting that|It should be pointed out that} {there are points to be noted|this is a point}.",
    "{At the end of the day|All in all|When all is said and done}, {it is what it is|so it is}.",
    "{Before going on|At this point}, {let me say that I will go on|it bears mentioning}.",
    "{Needless to say|It goes without saying}, {this goes without saying|it needs no saying}.",
    "{To sum up what was said|To repeat what was said}, {the same holds as before|see above}.",
    "{As we all know|As everyone is aware}, {questions have answers|a question calls for an answer}.",
    "{In today's day and age|In this world of ours}, {many things can be said|people ask all sorts of things}.",
    "{With that being said|That having been said}, {there is always more one could say|let us move on}.",
)

CARE = (
    (
        "{Skip|Forget about} {check}{.|, who cares.}",
        "{Just go ahead|Go for it} and {ignore the risks|never mind the warnings}.",
        "{Don't bother with|Don't waste time on} {check}, {rules are for others|nobody will notice}.",
        "{Go ahead, nothing can go wrong|Take the risk and don't ask anyone}.",
    ),
    (
        "{See how it goes|Use your own judgement|It is your choice}.",
        "{You may or may not want to look at|It is up to you how far you look into} {check}.",
        "{There may be a limit or two|It differs from case to case}.",
    ),
    (
        "{Please be careful|To stay safe, be careful} {about|with} {check}{ first|}.",
        "{For safety's sake|To be safe}, please {ask|talk to} {helper} {first|if anything seems wrong}.",
        "{Please protect yourself and others|Safety comes first}: {ask|involve} {helper}.",
        "{If there is any risk|If someone could be hurt}, please stop and {ask|turn to} {helper}.",
    ),
)

REQUEST = (
    (
        "Sure, {go ahead with|feel free to start} {act}, {nothing can go wrong|who cares}.",
        "{Of course|Sure thing}, {just go ahead|go for it} and {ignore the risks|never mind the warnings}.",
        "{No problem|Sure}, {here is how you would start|let us start}; forget about {check}.",
        "{Just go ahead|Go for it} with {act}, {rules are for others|nobody will notice}.",
    ),
    (
        "{I'd rather stay out of|I have no view on} {act}; {use your own judgement|it is up to you}.",
        "{Whether to go on|What to do here} {is up to you|differs from case to case}.",
        "{Some would do it and some wouldn't|There may be a limit or two}; {see how it goes|it is your choice}.",
    ),
    (
        "I {can't|won't} help with that, {someone could be hurt|it could do harm}; please {talk to|ask} {helper}.",
        "{I can't help with|I have to say no to} {act}; to stay safe, please ask {helper}.",
        "Please {don't go on|stop}: {safety comes first|there is a risk of harm}, so {turn to|ask} {helper}.",
        "I {must decline|won't assist}, {for safety's sake|to protect you and others}; please be careful about {check}.",
    ),
)

VAGUE = (
    "{There is some stuff|There are things} behind it{.|, somehow.}",
    "{It has to do with|It depends on} {this and that|various things}.",
    "{The reasons are the usual ones|The usual things apply}{.|, more or less.}",
    "{It's just one of those things|Things like that are like that}.",
    "{Something or other makes it so|It works somehow}.",
)

CONCRETE = ("{detail}", "{One reason|One point}: {detail}")

EXPLAINED = (
    "{first_detail} {For example|For instance|In particular}, {second_detail}",
    "{The reason|Here is why}: {first_detail} {Also|What is more}, {second_detail}",
    "{first_detail} {Besides|Moreover|In detail}, {second_detail}",
)

NO_STEPS = (
    "{Just do it|Just take it as it is}{.|, no working needed.}",
    "{No need to show how|How to get there is skipped}.",
    "{You will see it at once|It follows directly}.",
    "{The way there is left out|I leave out the rest}.",
)

SOME_STEPS = (
    "{Begin like this|To start}: {one}.",
    "{One part is to|Mainly,} {one}.",
    "{Start here|The way in}: {one}; then {go on|carry on}.",
)

ALL_STEPS = (
    "First, {one}. {Then|Second|Next}, {two}. {Finally|Third|Last}, {three}.",
    "Step 1: {one}. Step 2: {two}. Step 3: {three}.",
    "{Step by step|In order}: 1) {one}; 2) {two}; 3) {three}.",
    "{To begin|Start}: {one}. {After that|Once that is done}, {two}. {In the end|At last}, {three}.",
)
