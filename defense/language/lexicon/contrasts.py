"""Everyday words of captions, and words that cannot be true in their place: a table of ours, by hand.

WordNet's co-hyponyms serve rare words; for common ones they are too near (street: path) or too far (ball: satellite).
One line: words that may be replaced, and what by. No word on the right is a synonym, a kind or a part of one on the
left. Base forms; where the left is always a plural, so is the right.
"""

from functools import cache

from defense.language.lexicon import PartOfSpeech

NOUNS = """
man guy gentleman: woman girl dog
woman lady: man boy dog
boy: woman girl dog
girl: man boy dog
child kid toddler baby: man woman dog
person people: dog cat horse
player athlete worker climber hiker skier snowboarder surfer swimmer cyclist biker rider diver: soldier doctor chef
runner skateboarder performer dancer musician singer motorcyclist: soldier doctor chef
dog puppy retriever terrier shepherd poodle greyhound: cat horse cow bird sheep rabbit
cat kitten: dog horse cow bird sheep rabbit
horse pony: dog cat cow bird sheep camel
cow bull: dog cat horse bird sheep elephant
sheep goat: dog cat horse bird elephant
bird duck goose seagull: dog cat horse cow sheep
fish: dog cat bird horse
animal: car tree house
car jeep van taxi: boat bicycle train airplane
bus truck: boat bicycle train airplane
bicycle bike: car boat bus train
motorcycle motorbike scooter: boat bus train
boat canoe kayak ship sailboat rowboat raft: car bus bicycle train
train: boat car bicycle airplane
airplane plane helicopter: boat car bus
shirt jersey blouse: skirt hat scarf
jacket coat vest sweater sweatshirt: skirt hat swimsuit
dress gown skirt: jacket helmet uniform
hat cap helmet: scarf glove shoe
scarf: hat shoe glove
shoe boot sandal: hat scarf glove
glove: hat shoe scarf
shorts pants trousers jeans: gloves scarves boots
sunglasses glasses goggles: gloves boots earrings
uniform suit outfit costume: swimsuit dress
clothes clothing: furniture
banana: apple orange pear grape lemon carrot
apple: banana orange pear grape lemon carrot
orange: banana apple pear grape carrot
pear grape lemon strawberry: banana apple carrot potato
carrot potato tomato: banana apple pear
cake bread sandwich pizza soup salad: banana flower newspaper
food meal: furniture
ball: stick kite umbrella cup key star
football soccer: tennis hockey golf
baseball basketball cricket volleyball: tennis hockey golf
tennis hockey golf: football basketball
frisbee: stick bone umbrella newspaper
stick branch: ball umbrella cup
toy doll: knife newspaper
umbrella: ball kite cup guitar star
key: ball cup banana mushroom
cup mug: ball key book umbrella
star: ball moon flower key
book newspaper: cup guitar umbrella
guitar piano drum violin: book camera umbrella
camera phone cellphone: book cup guitar
table desk: bed ladder boat
chair couch sofa bench: table ladder boat
bed: table ladder boat
beach shore coast: street forest kitchen desert
street road path trail sidewalk pathway highway alley: beach lake forest kitchen
field meadow yard lawn park garden playground: street beach kitchen lake
forest woods jungle: beach street kitchen desert
lake river ocean sea pond stream creek: street forest field desert
pool fountain: street forest field
mountain hill cliff slope: beach lake street kitchen
city town: forest beach desert
room kitchen bedroom bathroom restaurant store: forest beach lake
desert: beach forest lake street
grass: snow sand mud ice
sand dirt mud: grass snow ice
snow ice: grass sand mud
water: grass sand fire
air: water mud
ground floor: roof table
sky: ground floor
house building tower church barn: tree bridge tent boat
tree bush plant: house car bench
bridge pier dock: house tree tent
tent: house bridge tree
flower: mushroom stone leaf
mushroom: flower stone leaf banana
rock stone boulder: tree bench bicycle
hand arm: foot leg
foot leg: hand arm
head face: foot hand
mouth nose eye ear: hand foot
hair beard: scarf hat
sun: moon star
moon: sun star
night evening: morning
day morning afternoon: night
sunset sunrise: midnight
wall fence: car tree bench
door window: bench tree
sign flag banner: ladder bench
background: foreground
foreground: background
skateboard snowboard surfboard ski sled: bicycle horse piano
swing slide trampoline: bench piano
rope leash chain: book hat
wave: tree wall
crowd: car tree
audience family team: flock herd
ledge ramp rail railing: bench roof
cigarette: apple flower
tongue tail: leg
"""

ADJECTIVES = """
red: blue green yellow purple white black
orange: blue green purple white black
yellow: red blue green purple white black
green: red yellow purple white black orange
blue: red yellow green white black orange
purple: red yellow green white black orange
pink: blue green yellow white black brown
white: red blue green black brown
black: red blue green white yellow
brown: red blue green white black purple
grey gray silver: red blue green yellow purple
tan beige golden: red blue green black
blond blonde: black
small little tiny: large huge
large big huge: small tiny
striped: spotted plain checkered
spotted: striped plain checkered
checkered plaid: striped spotted plain
plain: striped spotted
wooden: metallic plastic
brick: wooden glass
two: three four five six
three: two four five six
four: two three five six
five: two three four six
six: two three four five
young: old
old elderly: young
wet: dry
dry: wet
tall: short
short: tall
grassy: sandy snowy rocky
sandy: grassy snowy rocky
snowy icy: grassy sandy
rocky: grassy sandy snowy
muddy dirty: clean
smiling: crying frowning
sunny: rainy
cloudy: clear
soft: hard
"""

VERBS = """
run jog sprint race: sit stand sleep swim
walk stroll hike: sit sleep swim fly
stand: sit sleep swim lie
sit: stand run sleep walk
lie lay: stand run jump
jump leap hop bounce: sit sleep crawl
climb: sit sleep swim
swim float: climb fly walk
fly: swim walk sleep
dance sing perform: sleep
play: watch
hold carry: drop wash
wear: wash fold
ride: push wash
drive: wait crash
read: wash burn
look stare gaze peer: scream laugh
pose: fight sleep
smile grin laugh: cry frown
talk chat speak: fight sleep
eat drink: throw paint wash
chew bite lick: ignore wash
chase: ignore
follow: lead
catch: kick paint
throw toss: catch wash
kick hit: catch wash
push: pull
pull: push
hug kiss: fight ignore
watch: ignore paint
surf skate skateboard snowboard ski: swim walk sleep
kneel crouch squat: stand jump
slide roll: climb sleep
splash: climb sleep
rest sleep nap: run dance
wait: dance run
fall: climb stand
bark: sleep
"""


@cache
def contrasts(part: PartOfSpeech) -> dict[str, tuple[str, ...]]:
    """What may stand in place of each word that the table lists as that part of speech."""
    found: dict[str, tuple[str, ...]] = {}
    for line in {"noun": NOUNS, "adj": ADJECTIVES, "verb": VERBS, "adv": ""}[part].strip().splitlines():
        words, others = line.split(": ")
        for word in words.split():
            assert word not in found, f"{word} stands twice in the table of contrasts"
            found[word] = tuple(others.split())
    return found
