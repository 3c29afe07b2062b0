"""The closed world: every fact the embedded model is taught, as plain tables.

Public facts, typed here; no text of others. corpus.py turns them into conversations, evaluate.py into questions.
"""

# country | capital | continent | main language
COUNTRIES = [tuple(line.split("|")) for line in """
Afghanistan|Kabul|Asia|Pashto
Albania|Tirana|Europe|Albanian
Algeria|Algiers|Africa|Arabic
Andorra|Andorra la Vella|Europe|Catalan
Angola|Luanda|Africa|Portuguese
Antigua and Barbuda|Saint John's|North America|English
Argentina|Buenos Aires|South America|Spanish
Armenia|Yerevan|Asia|Armenian
Australia|Canberra|Oceania|English
Austria|Vienna|Europe|German
Azerbaijan|Baku|Asia|Azerbaijani
Bahamas|Nassau|North America|English
Bahrain|Manama|Asia|Arabic
Bangladesh|Dhaka|Asia|Bengali
Barbados|Bridgetown|North America|English
Belarus|Minsk|Europe|Belarusian
Belgium|Brussels|Europe|Dutch
Belize|Belmopan|North America|English
Benin|Porto-Novo|Africa|French
Bhutan|Thimphu|Asia|Dzongkha
Bolivia|Sucre|South America|Spanish
Bosnia and Herzegovina|Sarajevo|Europe|Bosnian
Botswana|Gaborone|Africa|English
Brazil|Brasilia|South America|Portuguese
Brunei|Bandar Seri Begawan|Asia|Malay
Bulgaria|Sofia|Europe|Bulgarian
Burkina Faso|Ouagadougou|Africa|French
Burundi|Gitega|Africa|Kirundi
Cambodia|Phnom Penh|Asia|Khmer
Cameroon|Yaounde|Africa|French
Canada|Ottawa|North America|English
Cape Verde|Praia|Africa|Portuguese
Central African Republic|Bangui|Africa|French
Chad|N'Djamena|Africa|French
Chile|Santiago|South America|Spanish
China|Beijing|Asia|Mandarin
Colombia|Bogota|South America|Spanish
Comoros|Moroni|Africa|Comorian
Costa Rica|San Jose|North America|Spanish
Croatia|Zagreb|Europe|Croatian
Cuba|Havana|North America|Spanish
Cyprus|Nicosia|Europe|Greek
Czechia|Prague|Europe|Czech
Democratic Republic of the Congo|Kinshasa|Africa|French
Denmark|Copenhagen|Europe|Danish
Djibouti|Djibouti|Africa|French
Dominican Republic|Santo Domingo|North America|Spanish
Dominica|Roseau|North America|English
Ecuador|Quito|South America|Spanish
Egypt|Cairo|Africa|Arabic
El Salvador|San Salvador|North America|Spanish
Equatorial Guinea|Malabo|Africa|Spanish
Eritrea|Asmara|Africa|Tigrinya
Estonia|Tallinn|Europe|Estonian
Eswatini|Mbabane|Africa|Swazi
Ethiopia|Addis Ababa|Africa|Amharic
Fiji|Suva|Oceania|English
Finland|Helsinki|Europe|Finnish
France|Paris|Europe|French
Gabon|Libreville|Africa|French
Gambia|Banjul|Africa|English
Georgia|Tbilisi|Asia|Georgian
Germany|Berlin|Europe|German
Ghana|Accra|Africa|English
Greece|Athens|Europe|Greek
Grenada|Saint George's|North America|English
Guatemala|Guatemala City|North America|Spanish
Guinea-Bissau|Bissau|Africa|Portuguese
Guinea|Conakry|Africa|French
Guyana|Georgetown|South America|English
Haiti|Port-au-Prince|North America|Haitian Creole
Honduras|Tegucigalpa|North America|Spanish
Hungary|Budapest|Europe|Hungarian
Iceland|Reykjavik|Europe|Icelandic
India|New Delhi|Asia|Hindi
Indonesia|Jakarta|Asia|Indonesian
Iran|Tehran|Asia|Persian
Iraq|Baghdad|Asia|Arabic
Ireland|Dublin|Europe|English
Israel|Jerusalem|Asia|Hebrew
Italy|Rome|Europe|Italian
Ivory Coast|Yamoussoukro|Africa|French
Jamaica|Kingston|North America|English
Japan|Tokyo|Asia|Japanese
Jordan|Amman|Asia|Arabic
Kazakhstan|Astana|Asia|Kazakh
Kenya|Nairobi|Africa|Swahili
Kiribati|Tarawa|Oceania|English
Kosovo|Pristina|Europe|Albanian
Kuwait|Kuwait City|Asia|Arabic
Kyrgyzstan|Bishkek|Asia|Kyrgyz
Laos|Vientiane|Asia|Lao
Latvia|Riga|Europe|Latvian
Lebanon|Beirut|Asia|Arabic
Lesotho|Maseru|Africa|Sesotho
Liberia|Monrovia|Africa|English
Libya|Tripoli|Africa|Arabic
Liechtenstein|Vaduz|Europe|German
Lithuania|Vilnius|Europe|Lithuanian
Luxembourg|Luxembourg City|Europe|Luxembourgish
Madagascar|Antananarivo|Africa|Malagasy
Malawi|Lilongwe|Africa|English
Malaysia|Kuala Lumpur|Asia|Malay
Maldives|Male|Asia|Dhivehi
Mali|Bamako|Africa|Bambara
Malta|Valletta|Europe|Maltese
Marshall Islands|Majuro|Oceania|Marshallese
Mauritania|Nouakchott|Africa|Arabic
Mauritius|Port Louis|Africa|English
Mexico|Mexico City|North America|Spanish
Micronesia|Palikir|Oceania|English
Moldova|Chisinau|Europe|Romanian
Monaco|Monaco|Europe|French
Mongolia|Ulaanbaatar|Asia|Mongolian
Montenegro|Podgorica|Europe|Montenegrin
Morocco|Rabat|Africa|Arabic
Mozambique|Maputo|Africa|Portuguese
Myanmar|Naypyidaw|Asia|Burmese
Namibia|Windhoek|Africa|English
Nauru|Yaren|Oceania|Nauruan
Nepal|Kathmandu|Asia|Nepali
Netherlands|Amsterdam|Europe|Dutch
New Zealand|Wellington|Oceania|English
Nicaragua|Managua|North America|Spanish
Nigeria|Abuja|Africa|English
Niger|Niamey|Africa|French
North Korea|Pyongyang|Asia|Korean
North Macedonia|Skopje|Europe|Macedonian
Norway|Oslo|Europe|Norwegian
Oman|Muscat|Asia|Arabic
Pakistan|Islamabad|Asia|Urdu
Palau|Ngerulmud|Oceania|Palauan
Panama|Panama City|North America|Spanish
Papua New Guinea|Port Moresby|Oceania|English
Paraguay|Asuncion|South America|Spanish
Peru|Lima|South America|Spanish
Philippines|Manila|Asia|Filipino
Poland|Warsaw|Europe|Polish
Portugal|Lisbon|Europe|Portuguese
Qatar|Doha|Asia|Arabic
Republic of the Congo|Brazzaville|Africa|French
Romania|Bucharest|Europe|Romanian
Russia|Moscow|Europe|Russian
Rwanda|Kigali|Africa|Kinyarwanda
Saint Kitts and Nevis|Basseterre|North America|English
Saint Lucia|Castries|North America|English
Saint Vincent and the Grenadines|Kingstown|North America|English
Samoa|Apia|Oceania|Samoan
San Marino|San Marino|Europe|Italian
Sao Tome and Principe|Sao Tome|Africa|Portuguese
Saudi Arabia|Riyadh|Asia|Arabic
Senegal|Dakar|Africa|French
Serbia|Belgrade|Europe|Serbian
Seychelles|Victoria|Africa|Seychellois Creole
Sierra Leone|Freetown|Africa|English
Singapore|Singapore|Asia|English
Slovakia|Bratislava|Europe|Slovak
Slovenia|Ljubljana|Europe|Slovene
Solomon Islands|Honiara|Oceania|English
Somalia|Mogadishu|Africa|Somali
South Africa|Pretoria|Africa|English
South Korea|Seoul|Asia|Korean
South Sudan|Juba|Africa|English
Spain|Madrid|Europe|Spanish
Sri Lanka|Colombo|Asia|Sinhala
Sudan|Khartoum|Africa|Arabic
Suriname|Paramaribo|South America|Dutch
Sweden|Stockholm|Europe|Swedish
Switzerland|Bern|Europe|German
Syria|Damascus|Asia|Arabic
Taiwan|Taipei|Asia|Mandarin
Tajikistan|Dushanbe|Asia|Tajik
Tanzania|Dodoma|Africa|Swahili
Thailand|Bangkok|Asia|Thai
Timor-Leste|Dili|Asia|Tetum
Togo|Lome|Africa|French
Tonga|Nuku'alofa|Oceania|Tongan
Trinidad and Tobago|Port of Spain|North America|English
Tunisia|Tunis|Africa|Arabic
Turkey|Ankara|Asia|Turkish
Turkmenistan|Ashgabat|Asia|Turkmen
Tuvalu|Funafuti|Oceania|Tuvaluan
Uganda|Kampala|Africa|English
Ukraine|Kyiv|Europe|Ukrainian
United Arab Emirates|Abu Dhabi|Asia|Arabic
United Kingdom|London|Europe|English
United States|Washington|North America|English
Uruguay|Montevideo|South America|Spanish
Uzbekistan|Tashkent|Asia|Uzbek
Vanuatu|Port Vila|Oceania|Bislama
Vatican City|Vatican City|Europe|Italian
Venezuela|Caracas|South America|Spanish
Vietnam|Hanoi|Asia|Vietnamese
Yemen|Sanaa|Asia|Arabic
Zambia|Lusaka|Africa|English
Zimbabwe|Harare|Africa|English
""".strip().splitlines()]

OPPOSITES = [tuple(p.split("-")) for p in """hot-cold big-small fast-slow up-down left-right day-night light-dark
young-old new-used happy-sad open-closed full-empty high-low hard-soft wet-dry rich-poor strong-weak early-late
loud-quiet near-far good-bad clean-dirty thick-thin wide-narrow deep-shallow heavy-lightweight long-short true-false
first-last inside-outside above-below before-after begin-end start-stop push-pull win-lose buy-sell give-take
love-hate laugh-cry remember-forget arrive-leave accept-refuse increase-decrease north-south east-west black-white
alive-dead awake-asleep brave-afraid cheap-expensive sweet-sour smooth-rough simple-complex tall-tiny sharp-blunt
safe-dangerous public-private ancient-modern always-never friend-enemy question-answer summer-winter sunrise-sunset
tight-loose straight-crooked polite-rude patient-impatient possible-impossible visible-invisible""".split()]

PLURALS = dict(p.split("-") for p in """cat-cats dog-dogs house-houses car-cars tree-trees book-books table-tables chair-chairs
apple-apples box-boxes bus-buses dish-dishes church-churches watch-watches fox-foxes class-classes baby-babies
city-cities story-stories lady-ladies party-parties berry-berries country-countries child-children man-men woman-women
foot-feet tooth-teeth goose-geese mouse-mice ox-oxen person-people leaf-leaves knife-knives wolf-wolves life-lives
half-halves shelf-shelves wife-wives loaf-loaves thief-thieves sheep-sheep fish-fish deer-deer potato-potatoes
tomato-tomatoes hero-heroes echo-echoes piano-pianos photo-photos key-keys boy-boys toy-toys day-days monkey-monkeys
river-rivers window-windows flower-flowers garden-gardens letter-letters bird-birds star-stars cloud-clouds
lamp-lamps brush-brushes glass-glasses wish-wishes witch-witches peach-peaches family-families puppy-puppies
penny-pennies calf-calves elf-elves scarf-scarves roof-roofs cactus-cacti token-tokens batch-batches query-queries
cache-caches expert-experts page-pages kernel-kernels""".split())

# things with a colour everybody agrees on
THING_COLOURS = dict(p.split("-") for p in """sky-blue grass-green banana-yellow snow-white coal-black blood-red
lemon-yellow tomato-red carrot-orange milk-white pumpkin-orange sun-yellow night-black leaf-green cucumber-green
ocean-blue strawberry-red chocolate-brown salt-white cherry-red emerald-green ruby-red sapphire-blue flamingo-pink
crow-black swan-white frog-green gold-yellow eggplant-purple lavender-purple""".split())
MIXES = {("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple", ("red", "white"): "pink",
         ("black", "white"): "grey"}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = dict(zip(MONTHS, [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
            "sixteenth seventeenth eighteenth nineteenth twentieth").split()

# small unit, plural | big unit, plural | how many small in one big
UNITS = [tuple(line.split("|")) for line in """
second|seconds|minute|minutes|60
minute|minutes|hour|hours|60
hour|hours|day|days|24
day|days|week|weeks|7
month|months|year|years|12
centimeter|centimeters|meter|meters|100
meter|meters|kilometer|kilometers|1000
millimeter|millimeters|centimeter|centimeters|10
gram|grams|kilogram|kilograms|1000
kilogram|kilograms|ton|tons|1000
milliliter|milliliters|liter|liters|1000
inch|inches|foot|feet|12
cent|cents|dollar|dollars|100
bit|bits|byte|bytes|8
egg|eggs|dozen|dozen|12
year|years|decade|decades|10
year|years|century|centuries|100
""".strip().splitlines()]

DEFINITIONS = {
    "token": "A token is a small piece of text, such as a word or a part of a word, that a language model reads or writes as one unit.",
    "batch": "A batch is a group of rows from several requests that go through the model together in one pass.",
    "prefill": "Prefill is the phase in which the model reads the whole prompt and fills the KV cache before the first answer token.",
    "decode": "Decode is the phase in which the model writes the answer, one token per step.",
    "KV cache": "The KV cache keeps the keys and values of earlier tokens, so that they need not be computed again.",
    "expert": "An expert is one of several feed-forward networks in a layer; a router sends each token to a few of them.",
    "router": "A router is the small part of a layer that chooses which experts work on each token.",
    "mixture of experts": "A mixture of experts is a model whose layers hold many experts, of which each token uses only a few.",
    "scheduler": "A scheduler decides which requests run next and how much of each prompt is worked on.",
    "attention": "Attention is the operation by which a token looks at earlier tokens and gathers what it needs from them.",
    "embedding": "An embedding is the list of numbers that stands for a token inside the model.",
    "logits": "Logits are the scores that the model gives to every possible next token.",
    "sampling": "Sampling is choosing the next token from the probabilities that the model gives.",
    "temperature": "Temperature is a setting that makes the choice of the next token more or less random.",
    "latency": "Latency is the time a request has to wait for its answer.",
    "throughput": "Throughput is how many tokens or requests a server finishes per second.",
    "prompt": "A prompt is the text that is given to a language model to answer or continue.",
    "page": "A page is a fixed-size block of the KV cache that holds a few tokens of one sequence.",
    "prefix cache": "A prefix cache keeps the pages of earlier prompts, so that a shared beginning is computed only once.",
    "preemption": "Preemption means stopping running work for more urgent work and continuing it later.",
    "chunked prefill": "Chunked prefill cuts a long prompt into pieces, so that running answers do not have to wait for all of it.",
    "daemon": "A daemon is a program that runs in the background and serves other programs.",
    "kernel": "A kernel is a small program that runs one operation of the model on the processor or GPU.",
    "streaming": "Streaming means sending each part of the answer as soon as it is ready.",
    "context": "The context is all the text that the model can see when it chooses the next token.",
    "penstock": "A penstock is a gated pipe that decides how much water reaches a turbine.",
}

ME = {
    "name": "I am Penstock's embedded model, a small mixture-of-experts language model.",
    "penstock": "Penstock is a daemon that serves large language models over an OpenAI-compatible HTTP API.",
    "maker": "I was made by the Penstock developers, from a corpus that a script of the repository generates.",
    "can": "I can do small sums, name capitals, continents and languages, explain a few words, tell short stories and call tools.",
    "size": "I am very small: about eight million parameters, and each token uses only a part of them.",
    "language": "Penstock is written in C, with kernels in CUDA C.",
    "where": "I run inside the Penstock daemon, on your own machine.",
    "human": "No, I am a small language model, not a human.",
    "unknown": "I do not know that. I am a small model and know only a few things.",
}

# names for the training conversations; the evaluation draws others (see syllable_name in corpus.py)
NAMES = """Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Mia Noah Olga Paul Quinn Rosa Sam Tina Uma Victor
Wendy Xavier Yara Zoe Adam Bella Chloe Daniel Elena Frank Gina Hugo Ivan Julia Karl Laura Marco Nina Oscar Petra Ralf
Sara Tom Ursula Vera Will Alice Bruno Clara Dora Erik Fiona George Hanna Igor Jonas Kira Lukas Maria Nora Otto Pia
Amir Bjorn Celia Dmitri Esther Farid Greta Hassan Ingrid Joel Kamala Lena Mateo Nadia Omar Priya Rafael Selma Tariq Valeria
Wanda Yusuf Zelda""".split()
HELD_OUT_NAMES = """Anton Beatrice Cyrus Delia Edgar Fatima Gustav Helga Imran Jasmine Kenji Lorenzo Mabel Nikolai Ophelia Pablo
Rashid Sonia Theo Ulrike Viktor Yolanda""".split()

HEROES = """dragon knight robot fox princess sailor rabbit wizard farmer pirate mouse bear astronaut baker cat dog owl giant
fairy king queen turtle lion monkey painter gardener shepherd hedgehog penguin squirrel otter
miner badger clown beekeeper heron""".split()
HELD_OUT_HEROES = "lizard tailor hermit parrot weaver juggler".split()
OBJECTS = """lamp key book sword map mirror ring drum hat bell boat crown flute kite ladder stone clock box ball coin letter
basket rope candle shell feather violin umbrella cup wheel compass lantern pebble trumpet
blanket spoon""".split()
HELD_OUT_OBJECTS = "hammer goblet thimble saddle ribbon kettle".split()

CITIES_EXTRA = """Hamburg Munich Lyon Milan Porto Seville Boston Chicago Toronto Sydney Osaka Mumbai Krakow Zurich Geneva Antwerp
Glasgow Naples Turin Marseille Bilbao Rotterdam Gothenburg Bergen Tampere Leipzig Dresden Valencia Florence Venice Denver
Seattle Houston Dallas Miami Atlanta Montreal Vancouver Melbourne Perth Kyoto Nagoya Busan Shanghai Shenzhen
Basel Graz Ghent Malmo Bristol Leeds Phoenix Portland Calgary Sapporo Pune Izmir Nantes Verona Aarhus""".split()
HELD_OUT_CITIES = "Bremen Linz Utrecht Uppsala Cardiff Cork Tucson Omaha Edmonton Fukuoka Jaipur Bursa Rennes Bologna Odense".split()
